"""Zeros among single weights: a share of each layer, or all but N of every M in a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Streamed, Weights
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep
from reuselib.lineage.structure import Structure
from reuselib.measure.claims import bit_equal, same_shapes, truly_new
from reuselib.network.layers import is_transposed
from reuselib.pruning.choosing import chosen, refuse_new, require_finite
from reuselib.pruning.masks import Quota
from reuselib.pruning.sparse import Targets, num_zeros_of, out_by_in
from reuselib.pruning.zeros import prove_zeros

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.task import Batch


@dataclass(frozen=True, kw_only=True)
class Sparsify(Adapter):
    """Set single weights to zero; steps that train afterwards keep them there.

    The child is as large and as fast as before: zeros pay where something reads them, such as a file that is packed, or
    a processor that skips two of four.
    """

    kind: ClassVar[str] = "sparsify"
    relation: ClassVar[str] = "prune"

    sparsity: float | None = None
    """Share of the weights of each target that becomes zero, exact to one weight; give this or `pattern`."""
    pattern: Literal["2:4", "4:8"] | None = None
    """Keep the best two of every four weights along a layer's inputs, or four of every eight."""
    method: Literal["magnitude", "wanda", "sparsegpt"] = "magnitude"
    """Which weights go: the smallest; those that change the outputs least, row by row (Sun et al., 2023); or those for
    which the weights that stay can make up best, and do (Frantar and Alistarh, 2023)."""
    target_modules: tuple[str, ...] | None = None
    """Selectors of the layers, such as `op:Linear` or `*.query`; null: the linear layers and ungrouped convolutions of
    the blocks. The head is never among them."""
    calibration: Calibration = Calibration()
    """Rows for `wanda` and `sparsegpt`."""

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError("give either sparsity, such as 0.5, or pattern, such as `2:4`")
        if self.sparsity is not None and not 0.01 <= self.sparsity < 1:
            raise ValueError(
                f"sparsity must be at least 0.01 and less than 1, got {self.sparsity:g}"
            )
        if self.method == "magnitude" and self.calibration != Calibration():
            raise ValueError("calibration has no effect with method `magnitude`")

    @property
    def _quota(self) -> Quota:
        return Quota(self.sparsity, self.pattern)

    def follow(self, form: str) -> str:
        """See `Adapter.follow`; more zeros may be added to a sparse model."""
        if form != "sparse":
            super().follow(form)
        return "sparse"

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Zero weights in place."""
        layers = chosen(module, self.target_modules, self._quota, head=run.task.head(module))
        refuse_new(layers, run.fresh)
        for name, layer in layers.items():
            require_finite(name, layer.weight)
        before = sum(num_zeros_of(each.weight) for each in layers.values())
        if self.method == "magnitude":
            for layer in layers.values():
                matrix = out_by_in(layer.weight, transposed=is_transposed(layer))
                matrix.masked_fill_(self._quota.smallest(matrix), 0.0)
        else:
            from reuselib.pruning.solving import solve

            rows, compensate = self._rows(run), self.method == "sparsegpt"
            solve(module, run.task, rows, layers, self._quota, compensate=compensate)
        zeros = {name: num_zeros_of(each.weight) for name, each in layers.items()}
        return _adapted(module, layers, zeros, before, run.fresh)

    @property
    def streams(self) -> bool:
        """See `Adapter.streams`: which weights are the smallest is a matter of each layer alone."""
        return self.method == "magnitude"

    def stream(self, module: nn.Module, weights: Weights, run: Run) -> Streamed:
        """See `Adapter.stream`."""
        from reuselib.network.sharing import own_names, shared_names

        layers = chosen(module, self.target_modules, self._quota, head=run.task.head(module))
        shared, seen = shared_names(module), dict[str, tuple[int, int]]()
        homes = {name: shared[f"{name}.weight"] for name in layers}
        targets = {home: name for name, home in homes.items()}

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for name in own_names(module):
                value = weights[name]
                if name in targets:
                    require_finite(targets[name], value)
                    before, value = num_zeros_of(value), value.clone()
                    matrix = out_by_in(value, transposed=is_transposed(layers[targets[name]]))
                    matrix.masked_fill_(self._quota.smallest(matrix), 0.0)
                    seen[name] = before, num_zeros_of(value)
                yield name, value

        def adapted() -> Adapted:
            before = sum(seen[home][0] for home in homes.values())
            zeros = {name: seen[home][1] for name, home in homes.items()}
            return _adapted(module, layers, zeros, before, run.fresh)

        return Streamed(module, tensors(), adapted)

    def outline(self, module: nn.Module, run: Run) -> Adapted:
        """See `Adapter.outline`; zeros take as much room as other numbers."""
        if self.method != "magnitude":
            self._rows(run)
        return Adapted(module)

    def _rows(self, run: Run) -> Sequence[Batch]:
        return run.batches(self.calibration.num_rows, batch_size=self.calibration.batch_size)

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """As many zeros as recorded and as the recipe says; what is not zero, and the rest, is the parent's."""
        record = Structure.read(structure, ("new", "zeros", "transposed"))
        parent, new = parents[0], record.names("new")
        targets = Targets(
            parent, child, record.counts("zeros"), frozenset(record.names("transposed"))
        )
        yield same_shapes(parent, child, new)
        rest = [name for name in child if name not in targets.zeros and name not in new]
        yield bit_equal("every other tensor is bit-equal to the parent's", parent, child, rest)
        yield truly_new(new, parent)
        yield from prove_zeros(targets, self._quota, self.method)


def _adapted(
    module: nn.Module,
    layers: Mapping[str, nn.Module],
    zeros: Mapping[str, int],
    before: int,
    fresh: frozenset[str],
) -> Adapted:
    """The child and its record; `zeros` are those of each layer, `before` those of all before the step."""
    num_zero = sum(zeros.values())
    if num_zero == before:
        raise IncompatibleStep(
            f"the selected layers hold {num_zero} zeros already, so this step would have no effect",
            expected="a higher `sparsity` than that of the model before",
            fix="raise `sparsity`, or leave the step out",
        )
    structure: Json = {
        "new": sorted(fresh),
        "zeros": {f"{name}.weight": number for name, number in zeros.items()},
        "transposed": [f"{name}.weight" for name, each in layers.items() if is_transposed(each)],
    }
    num_weights = sum(each.weight.numel() for each in layers.values())
    metrics = {"num_zeros": float(num_zero), "sparsity": num_zero / num_weights}
    return Adapted(module, structure=structure, metrics=metrics)
