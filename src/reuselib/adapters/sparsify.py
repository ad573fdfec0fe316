"""Zeros among single weights: a share of each layer, or all but N of every M in a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Streamed, Weights
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep
from reuselib.lineage.structure import Structure
from reuselib.measure.chunks import pieces
from reuselib.measure.claims import bit_equal, same_bits, same_shapes, truly_new
from reuselib.pruning.sparse import Targets, num_zeros_of, out_by_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.calibration.statistics import Statistics

LAYERS = ("Linear", "NonDynamicallyQuantizableLinear", "Conv1D", "Conv1d", "Conv2d", "Conv3d")
"""Types whose weight is [out, in, ...], but for GPT-2's Conv1D, which keeps it as [in, out]."""


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

    def follow(self, form: str) -> str:
        """See `Adapter.follow`; more zeros may be added to a sparse model."""
        if form != "sparse":
            super().follow(form)
        return "sparse"

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Zero weights in place."""
        layers = self._targets(module, run.task.head(module))
        _refuse_new(layers, run.fresh)
        for name, layer in layers.items():
            _require_finite(name, layer.weight)
        before = _num_zero(layers.values())
        if self.method == "magnitude":
            for layer in layers.values():
                matrix = out_by_in(layer.weight, transposed=_is_transposed(layer))
                matrix.masked_fill_(self._smallest(matrix), 0.0)
        else:
            self._calibrate(module, run, layers)
        zeros = {name: int((each.weight == 0).sum()) for name, each in layers.items()}
        return _adapted(module, layers, zeros, before, run.fresh)

    @property
    def streams(self) -> bool:
        """See `Adapter.streams`: which weights are the smallest is a matter of each layer alone."""
        return self.method == "magnitude"

    def stream(self, module: nn.Module, weights: Weights, run: Run) -> Streamed:
        """See `Adapter.stream`."""
        from reuselib.network.sharing import own_names, shared_names

        layers = self._targets(module, run.task.head(module))
        shared, seen = shared_names(module), dict[str, tuple[int, int]]()
        homes = {name: shared[f"{name}.weight"] for name in layers}
        targets = {home: name for name, home in homes.items()}

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for name in own_names(module):
                value = weights[name]
                if name in targets:
                    _require_finite(targets[name], value)
                    before, value = num_zeros_of(value), value.clone()
                    matrix = out_by_in(value, transposed=_is_transposed(layers[targets[name]]))
                    matrix.masked_fill_(self._smallest(matrix), 0.0)
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
            run.batches(self.calibration.num_rows, batch_size=self.calibration.batch_size)
        return Adapted(module)

    def _smallest(self, matrix: Tensor) -> Tensor:
        """What to zero of a matrix by its weights alone: [out, in] (bool)."""
        from reuselib.pruning.masks import num_zeros, smallest, smallest_of_each

        if self.pattern is not None:
            return smallest_of_each(matrix.abs(), self.pattern)
        return smallest(matrix.abs(), num_zeros(matrix.numel(), self.sparsity or 0.0))

    def _calibrate(self, module: nn.Module, run: Run, layers: Mapping[str, nn.Module]) -> None:
        """Block by block, so that each is judged by what the sparse ones before it give."""
        import torch

        from reuselib.calibration.statistics import as_matrix
        from reuselib.calibration.streaming import stream

        rows = self.calibration
        batches = run.batches(rows.num_rows, batch_size=rows.batch_size)
        gram = self.method == "sparsegpt"
        for visit in stream(module, run.task, batches, list(layers), gram=gram):
            for name, seen in visit.layers.items():
                matrix = as_matrix(layers[name])
                with torch.no_grad():
                    matrix.copy_(self._solved(matrix, seen))

    def _solved(self, matrix: Tensor, seen: Statistics) -> Tensor:
        """The sparse matrix, by what goes into its layer."""
        from reuselib.pruning.masks import PATTERNS
        from reuselib.pruning.sparsegpt import sparsegpt
        from reuselib.pruning.wanda import wanda

        pattern = PATTERNS[self.pattern] if self.pattern else None
        if seen.gram is not None:
            return sparsegpt(matrix, seen.gram, sparsity=self.sparsity, pattern=pattern)
        stays = wanda(matrix, seen.norm, sparsity=self.sparsity, pattern=pattern)
        return matrix.masked_fill(~stays, 0.0)

    def _targets(self, module: nn.Module, head: Sequence[str]) -> dict[str, nn.Module]:
        names = self._selected(module, head) if self.target_modules else _default(module, head)
        layers = {name: module.get_submodule(name) for name in names}
        if not layers:
            raise IncompatibleStep(
                f"target_modules={self.target_modules and list(self.target_modules)} matches no layer besides the head",
                expected="linear layers or convolutions of the backbone",
                fix="name layers, such as `op:Linear`",
            )
        for name, layer in layers.items():
            self._check(name, layer)
        return layers

    def _selected(self, module: nn.Module, head: Sequence[str]) -> list[str]:
        from reuselib.network.parts import within
        from reuselib.network.selectors import select_modules

        found = select_modules(module, self.target_modules or (), head=head)
        inside_head = set(within(found, head))
        return [name for name in found if name not in inside_head]

    def _check(self, name: str, layer: nn.Module) -> None:
        from reuselib.pruning.masks import PATTERNS

        if type(layer).__name__ not in LAYERS:
            raise IncompatibleStep(
                f"target_modules selects {name}, which is of type {type(layer).__name__}",
                expected=f"layers of type {', '.join(LAYERS)}",
                fix="narrow target_modules, for instance with `op:Linear & block[:]`",
            )
        matrix = out_by_in(layer.weight, transposed=_is_transposed(layer))
        if self.pattern is not None and matrix.shape[1] % (size := PATTERNS[self.pattern][1]):
            raise IncompatibleStep(
                f"pattern='{self.pattern}' needs groups of {size}, but {name} has {matrix.shape[1]} inputs",
                expected=f"layers whose number of inputs is a multiple of {size}",
                fix="leave that layer out with `target_modules`, or use `sparsity`",
            )

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
        claim = "every target is there, and together they gained zeros"
        absent = next((name for name in targets.zeros if name not in targets.present), "")
        more = not absent and _num_zeros(child, targets.present) > _num_zeros(
            parent, targets.present
        )
        yield Finding(claim, more, tensor=absent)
        if absent:
            return
        yield _first(
            "every target holds as many zeros as recorded, and no more than asked for",
            self._miscounted(targets),
        )
        if self.pattern is not None:
            claim = f"every group along the inputs is {self.pattern}"
            yield _first(claim, self._too_full(targets))
        yield _first("what the parent holds as zero stays zero", targets.filled())
        yield from self._survivors(targets)

    def _survivors(self, targets: Targets) -> Iterator[Finding]:
        """What became of the weights that are left."""
        if self.method == "magnitude":
            yield _first(
                "the zeros are the parent's smallest weights, and all others are its own, bit for bit",
                self._other_than_smallest(targets),
                compared=len(targets.present),
            )
        elif self.method == "wanda":
            yield _first(
                "all weights that are not zero are the parent's, bit for bit",
                targets.moved(),
                compared=len(targets.present),
            )
        else:
            yield _first(
                "weights of a layer's first input, which make up for nothing, are the parent's or zero",
                targets.moved(slice(0, 1)),
            )
            yield Finding(
                "the weights that are left make up for those that are gone",
                None,
                "shows on the calibration rows only: run the recipe again",
            )

    def _miscounted(self, targets: Targets) -> Iterator[tuple[str, str]]:
        for name in targets.present:
            found, recorded = num_zeros_of(targets.child[name]), targets.zeros[name]
            before = num_zeros_of(targets.parent[name])
            least, most = self._bounds(targets, name, before)
            if found != recorded or not least <= found <= most:
                asked = f"{least}" if least == most else f"{least} to {most}"
                yield name, f"{found} zeros, recorded {recorded}, {asked} asked for"

    def _bounds(self, targets: Targets, name: str, before: int) -> tuple[int, int]:
        """How many zeros a target may hold, that held some before."""
        from reuselib.pruning.masks import PATTERNS, num_zeros

        number = targets.parent[name].numel()
        if self.pattern is None:
            wanted = num_zeros(number, self.sparsity or 0.0)
        else:
            stays, size = PATTERNS[self.pattern]
            wanted = number // size * (size - stays)
        if before == 0:
            return wanted, wanted
        # where they lie decides: some may lie where a zero was to go anyway
        return max(wanted, before), min(number, wanted + before)

    def _too_full(self, targets: Targets) -> Iterator[tuple[str, str]]:
        from reuselib.pruning.masks import PATTERNS, num_too_full

        pattern = self.pattern or ""
        for name in targets.present:
            matrix = targets.matrix(targets.child, name)
            if matrix.shape[1] % PATTERNS[pattern][1]:
                yield name, f"{matrix.shape[1]} inputs cannot be grouped"
                continue
            number = sum(num_too_full(matrix[rows], pattern) for rows in pieces(matrix.shape))
            if number:
                yield name, f"{number} groups are not"

    def _other_than_smallest(self, targets: Targets) -> Iterator[tuple[str, str]]:
        for name in targets.present:
            matrix = targets.matrix(targets.parent, name)
            if not matrix.isfinite().all():
                yield name, "the parent's weights are not all finite, so they have no order"
                continue
            wanted = matrix.masked_fill(self._smallest(matrix), 0.0)
            if not same_bits(targets.matrix(targets.child, name), wanted):
                yield name, "differs from the parent's with its smallest weights zeroed"


def _default(module: nn.Module, head: Sequence[str]) -> list[str]:
    """Names of the linear layers and ungrouped convolutions in the blocks, or in a backbone without blocks."""
    from reuselib.network.parts import parts

    network = parts(module, head)
    inside = frozenset().union(*network.blocks) or network.backbone
    # of a tied weight only the lender is listed, and it must not be a layer that looks rows up
    return [
        name
        for name, layer in module.named_modules()
        if type(layer).__name__ in LAYERS
        and f"{name}.weight" in inside
        and getattr(layer, "groups", 1) == 1
    ]


def _refuse_new(layers: Mapping[str, nn.Module], fresh: frozenset[str]) -> None:
    new = next((name for name in layers if f"{name}.weight" in fresh), "")
    if new:
        raise IncompatibleStep(
            f"{new} is newly initialised (the base does not hold it), so its weights say nothing yet",
            expected="layers that were trained",
            fix="put a `finetune` step before it, or leave that layer out with `target_modules`",
        )


def _require_finite(name: str, weight: Tensor) -> None:
    if not weight.isfinite().all():
        raise IncompatibleStep(
            f"the weights of {name} are not all finite, so they have no order",
            expected="finite weights",
            fix="start from a sound model",
        )


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
        "transposed": [f"{name}.weight" for name, each in layers.items() if _is_transposed(each)],
    }
    num_weights = sum(each.weight.numel() for each in layers.values())
    metrics = {"num_zeros": float(num_zero), "sparsity": num_zero / num_weights}
    return Adapted(module, structure=structure, metrics=metrics)


def _is_transposed(layer: nn.Module) -> bool:
    return type(layer).__name__ == "Conv1D"


def _num_zeros(weights: Weights, names: Sequence[str]) -> int:
    return sum(num_zeros_of(weights[name]) for name in names)


def _num_zero(layers: Iterable[nn.Module]) -> int:
    return sum(int((layer.weight == 0).sum()) for layer in layers)


def _first(claim: str, faults: Iterator[tuple[str, str]], compared: int = 0) -> Finding:
    name, detail = next(faults, ("", ""))
    return Finding(claim, not name, detail, name, 0 if name else compared)
