"""Quantization: weights as small integers, computed with by the fastest kernel there is, or in 16 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Streamed, Weights, as_json
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep
from reuselib.lineage.structure import Structure, malformed
from reuselib.quantization.schemes import HALF, INTEGER, Activations, Scheme, scheme
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from torch import nn

    from reuselib.quantization.factors import Factored

KEPT = "none"
"""In `schemes`: leave the layers as they are, see `quantization.choosing`."""


@dataclass(frozen=True, kw_only=True)
class Quantize(Adapter):
    """Store linear layers as 8- or 4-bit integers in the compressed-tensors format, or all weights in 16 bits."""

    kind: ClassVar[str] = "quantize"
    relation: ClassVar[str] = "quantize"

    scheme: Literal["int8", "int8-weight", "int4-weight", "bf16", "fp16"] = "int8"
    """`int8`: weights and inputs in 8 bits, which is faster; `int8-weight`, `int4-weight`: weights only, which is
    smaller; `bf16`, `fp16`: every weight in 16 bits, which is half the file."""
    method: Literal["rtn", "gptq", "awq"] = "rtn"
    """How weights are rounded: to the nearest (no data needed); GPTQ (Frantar et al., 2022), which makes up for each
    error in the weights still to be rounded; AWQ (Lin et al., 2023), which first stretches what matters most."""
    smooth: float | None = None
    """SmoothQuant (Xiao et al., 2022) for `int8`: how much of the inputs' range moves into the weights before rounding,
    between 0 and 1, such as 0.5."""
    group_size: int | None = None
    """Inputs of a layer that share a scale, for `int8-weight` and `int4-weight`; null: 128 for 4 bits, all for 8."""
    embeddings: Literal["int8"] | None = None
    """Quantize the table of input tokens too, with a scale for each; an output layer tied to it follows."""
    skip: tuple[str, ...] | None = None
    """Selectors of linear layers to leave alone; null: the head."""
    schemes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Scheme by selector for layers that differ from the rest: `int8`, `int8-weight`, `int4-weight` or `none`."""
    activations: Activations = "token"
    """What of the inputs shares a scale, for `int8`: each token has its own, or the whole tensor has one."""
    calibration: Calibration = Calibration()
    """Rows to look at, for `gptq`, `awq` and `smooth`."""
    fit: FitPlan | None = None
    """Train all weights with the rounding in the loop first (quantization-aware training); null: do not train."""

    def __post_init__(self) -> None:
        if self.scheme in HALF:
            self._refuse_set("scheme", f"scheme={self.scheme} casts every weight and nothing else")
            return
        if unknown := sorted(set(self.schemes.values()) - {*INTEGER, KEPT}):
            known = ", ".join((*INTEGER, KEPT))
            raise ValueError(f"schemes names '{unknown[0]}'; there are: {known}")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {self.group_size}")
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise ValueError(f"smooth must lie between 0 and 1, got {self.smooth}")
        self._refuse_idle()

    def _refuse_idle(self) -> None:
        """An option without effect is an error."""
        used = {self.scheme, *self.schemes.values()}
        if self.group_size is not None and not used & {"int8-weight", "int4-weight"}:
            raise ValueError("group_size has no effect: `int8` has one scale a row of weights")
        if self.activations != "token" and "int8" not in used:
            raise ValueError("activations has no effect: only `int8` rounds inputs")
        if self.smooth is not None and "int8" not in used:
            raise ValueError("smooth has no effect: only `int8` rounds inputs")
        if self.smooth is not None and self.method == "awq":
            raise ValueError("smooth and method=awq both rescale the same weights; set one of them")
        if self.fit is not None and (self.method != "rtn" or self.smooth is not None):
            raise ValueError(
                "fit trains with rounding to the nearest; leave out method and smooth, or fit"
            )
        if self.calibration != Calibration() and not self._looks_at_data:
            raise ValueError(
                "calibration has no effect: method=rtn without smooth looks at no data"
            )

    def _refuse_set(self, but: str, why: str) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            default = {} if each.name == "schemes" else each.default
            if each.name != but and value != default:
                raise ValueError(f"{each.name} has no effect: {why}")

    @property
    def _looks_at_data(self) -> bool:
        return self.method != "rtn" or self.smooth is not None

    def follow(self, form: str) -> str:
        """See `Adapter.follow`; zeros are on every grid, but their pattern is no longer kept."""
        if form not in ("dense", "sparse"):
            return super().follow(form)
        return "half" if self.scheme in HALF else "quantized"

    # Making the child.

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Choose layers, train or prepare them if that is asked for, and round."""
        if self.scheme in HALF:
            from reuselib.quantization.halving import halve

            halve(module, HALF[self.scheme])
            return Adapted(module, {"new": sorted(run.fresh)}, stock=True, dtype=HALF[self.scheme])
        from reuselib.quantization.interchange import declare

        structure, schemes = self._planned(module, run)
        linear = _all_linear(module)
        metrics = {} if self.fit is None else self._train(module, run, schemes)
        _round_tables(module, structure["tables"])
        if self._looks_at_data:
            structure |= self._solve(module, run, schemes)
        else:
            _round_layers(module, schemes)
        declare(module, schemes, structure["tables"], linear)
        return Adapted(module, structure=structure, metrics={**metrics, **_kernels(module)})

    def _planned(self, module: nn.Module, run: Run) -> tuple[dict[str, Any], dict[str, Scheme]]:
        """What is recorded of the layers to round, and how each is; looks at no weights."""
        from reuselib.quantization.replacing import is_transposed, token_tables

        named = self._chosen(module, run.task.head(module))
        _refuse_new(named, run.fresh)
        structure: dict[str, Any] = {
            "new": sorted(run.fresh),
            "layers": named,
            "tables": token_tables(module) if self.embeddings else [],
            "transposed": [name for name in named if is_transposed(module.get_submodule(name))],
        }
        return structure, {name: self._scheme(kind) for name, kind in named.items()}

    def _scheme(self, name: str) -> Scheme:
        size = None if name == "int8" else self.group_size
        return scheme(name, group_size=size, activations=self.activations)

    def _chosen(self, module: nn.Module, head: Sequence[str]) -> dict[str, str]:
        """Name of the scheme of each layer to quantize."""
        from reuselib.quantization.choosing import assigned, chosen, skipped
        from reuselib.quantization.replacing import linear_layers, matrix, require_groups

        layers = linear_layers(module)
        special = assigned(module, self.schemes, layers, head)
        kept = skipped(module, self.skip, layers, head)
        if self.skip is not None and (both := sorted(kept & special.keys())):
            raise IncompatibleStep(
                f"{both[0]} is in `skip` and in `schemes`",
                expected="each layer in one of them",
                fix="take it out of `skip`",
            )
        named = chosen(layers, self.scheme, special, kept)
        for name, kind in named.items():
            require_groups(name, matrix(layers[name]).shape[1], self._scheme(kind))
        return named

    def _train(
        self, module: nn.Module, run: Run, schemes: Mapping[str, Scheme]
    ) -> dict[str, float]:
        """Train with the rounding in the loop; afterwards the layers are plain again, with trained weights."""
        from reuselib.quantization.faking import RoundingLinear

        originals = {name: module.get_submodule(name) for name in schemes}
        for name, layer in originals.items():
            module.set_submodule(name, RoundingLinear(layer, schemes[name]))
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        metrics = run.fit(module, cast("FitPlan", self.fit))
        for name, layer in originals.items():
            module.set_submodule(name, layer)
        return metrics

    def _solve(self, module: nn.Module, run: Run, schemes: Mapping[str, Scheme]) -> dict[str, Json]:
        """Round with an eye on calibration rows; what `prove` needs besides."""
        from reuselib.quantization.solving import Method, solve

        rows = run.batches(self.calibration.num_rows, batch_size=self.calibration.batch_size)
        solved = solve(module, run.task, rows, schemes, Method(self.method, self.smooth))
        if self.smooth is not None and not solved.factored:
            raise IncompatibleStep(
                "smooth has no effect: nothing before a quantized layer of this network can take a factor over",
                expected="norms or linear layers directly before the layers that are quantized",
                fix="leave `smooth` out",
            )
        changes: dict[str, Json] = {} if self.method == "rtn" else dict(solved.changes)
        return {"factored": as_json(solved.factored), "changes": changes}

    @property
    def streams(self) -> bool:
        """See `Adapter.streams`: rounding to the nearest needs one layer at a time, and no rows."""
        return not self._looks_at_data and self.fit is None

    def stream(self, module: nn.Module, weights: Weights, run: Run) -> Streamed:
        """See `Adapter.stream`."""
        import torch

        from reuselib.network.sharing import own_names
        from reuselib.quantization.interchange import declare
        from reuselib.quantization.streaming import Rounding, halved

        if self.scheme in HALF:
            dtype = HALF[self.scheme]
            told = Adapted(module, {"new": []}, stock=True, dtype=dtype)
            tensors = halved(module, weights, dtype)
            return Streamed(module.to(getattr(torch, dtype)), tensors, lambda: told)
        before, linear = own_names(module), _all_linear(module)
        structure, schemes = self._planned(module, run)
        with torch.device("meta"):
            child = self.rebuild(module, structure)
        tables, transposed = structure["tables"], frozenset(structure["transposed"])
        declare(child, schemes, tables, linear)
        rounding = Rounding(schemes, tables, transposed)

        def adapted() -> Adapted:
            return Adapted(child, structure=structure, metrics=_counted(rounding.kernels))

        return Streamed(child, rounding.tensors(before, child, weights), adapted)

    def outline(self, module: nn.Module, run: Run) -> Adapted:
        """See `Adapter.outline`; the layers are chosen as by `adapt`, and replaced by empty ones."""
        if self.scheme in HALF:
            return Adapted(module, stock=True, dtype=HALF[self.scheme])
        import torch

        from reuselib.quantization.replacing import token_tables

        named = self._chosen(module, run.task.head(module))
        structure: Json = {
            "new": [],
            "layers": dict(named),
            "tables": [list(each) for each in token_tables(module)] if self.embeddings else [],
            "transposed": [],
        }
        if self._looks_at_data:
            run.batches(self.calibration.num_rows, batch_size=self.calibration.batch_size)
        if self.fit is not None:
            self._train(module, run, {name: self._scheme(kind) for name, kind in named.items()})
        with torch.device("meta"):
            return Adapted(self.rebuild(module, structure), structure=structure)

    def rebuild(self, module: nn.Module, structure: Json) -> nn.Module:
        """Put empty quantized layers where they were."""
        from reuselib.quantization.replacing import replace_linear, replace_table

        record = _read(structure)
        for name, kind in record.texts("layers").items():
            if kind not in INTEGER:
                raise malformed(f"{name} is quantized as '{kind}', which is no scheme", name)
            replace_linear(module, name, self._scheme(kind))
        for places in record.groups("tables"):
            replace_table(module, places)
        return module

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Rounding replayed bit for bit from the parent's weights; everything else bit-equal to the parent's."""
        from reuselib.measure.claims import truly_new
        from reuselib.quantization.factors import Factored
        from reuselib.quantization.proof import prove_half

        if self.scheme in HALF:
            new = Structure.read(structure, ("new",)).names("new")
            yield truly_new(new, parents[0])
            yield from prove_half(parents[0], child, HALF[self.scheme], new)
            return
        record = _read(structure)
        factored = [Factored.of(each) for each in record.items("factored")]
        yield truly_new(record.names("new"), parents[0])
        recorded = self._as_asked(record, factored)
        yield recorded
        if not recorded.holds:
            return
        yield from self._prove_rounding(parents[0], child, record, factored)

    def _prove_rounding(
        self, parent: Weights, child: Weights, record: Structure, factored: Sequence[Factored]
    ) -> Iterator[Finding]:
        from reuselib.quantization.factors import Prepared
        from reuselib.quantization.proof import Case

        misfit = next(((f.source, why) for f in factored if (why := f.misfit(parent))), ("", ""))
        if factored:
            claim = (
                "what is rescaled and what makes up for it are in one block, with as many channels"
            )
            yield Finding(claim, not misfit[0], misfit[1], misfit[0])
            yield Finding(
                "nothing else reads what a rescaled layer gives out",
                None,
                "shows when the network runs; it was tried before it was recorded",
            )
        if misfit[0]:
            return
        case = Case(
            parent=parent,
            child=child,
            layers={name: self._scheme(kind) for name, kind in record.texts("layers").items()},
            tables=record.groups("tables"),
            transposed=frozenset(record.names("transposed")),
            new=frozenset(record.names("new")),
            prepared=Prepared(parent, factored),
        )
        for first in (case.known, case.complete, case.shaped, case.on_grid):
            finding = first()
            yield finding
            if not finding.holds:
                return
        if self.fit is not None:
            yield from case.others_trained()
            return
        if self.method == "rtn":
            yield case.replayed()
        else:
            yield case.within(record.numbers("changes"))
            if self.method == "awq":
                yield case.clipped()
            else:
                yield from case.compensated()
            yield case.replayed(layers=False)
        yield case.others_equal()

    def _as_asked(self, record: Structure, factored: Sequence[Factored]) -> Finding:
        """What is recorded is what the configuration asks for; which layers a selector means, weights do not say."""
        layers, tables = record.texts("layers"), record.groups("tables")
        odd = {
            name: f"as {kind}, which the configuration does not name"
            for name, kind in layers.items()
            if kind not in INTEGER or kind not in {self.scheme, *self.schemes.values()}
        }
        scaled: set[str] = set()
        for fold in factored:
            if self.smooth is None and self.method != "awq":
                odd[fold.source] = "rescaled, which the method does not do"
            elif not layers.keys() & set(fold.targets):
                odd[fold.source] = "rescaled for no quantized layer"
            elif scaled & set(fold.targets):
                odd[fold.source] = "rescaled for a layer that another one is rescaled for"
            scaled |= set(fold.targets)
        if not layers:
            odd[""] = "no layer is quantized"
        if bool(tables) != (self.embeddings is not None):
            odd[""] = f"embeddings: {len(tables)} tables"
        claim = "what is recorded as quantized is what the configuration asks for"
        name, detail = next(iter(odd.items()), ("", f"{len(layers)} layers"))
        return Finding(claim, not odd, detail, name)


def _read(structure: Json) -> Structure:
    """What a child with integer weights records."""
    needed = ("new", "layers", "tables", "transposed")
    return Structure.read(structure, needed, optional=("factored", "changes"))


def _refuse_new(named: Iterable[str], fresh: frozenset[str]) -> None:
    new = next((name for name in named if f"{name}.weight" in fresh), "")
    if new:
        raise IncompatibleStep(
            f"{new} is newly initialised (the base does not hold it), so rounding it would keep random values",
            expected="layers that have been trained",
            fix="put `finetune` before, or leave it out of `schemes`",
        )


def _round_layers(module: nn.Module, schemes: Mapping[str, Scheme]) -> None:
    """Replace linear layers by their twins, rounded to the nearest."""
    from reuselib.quantization.replacing import matrix, replace_linear
    from reuselib.quantization.rounding import nearest

    for name, how in schemes.items():
        layer: Any = module.get_submodule(name)
        rounded = nearest(matrix(layer), how)
        replace_linear(module, name, how).fill(rounded, layer.bias)


def _round_tables(module: nn.Module, tables: Sequence[Sequence[str]]) -> None:
    """Replace embeddings, and what shares them, by their twins."""
    from reuselib.quantization.replacing import matrix, replace_table
    from reuselib.quantization.rounding import nearest
    from reuselib.quantization.schemes import ROWS

    for places in tables:
        before: dict[str, Any] = {name: module.get_submodule(name) for name in places}
        rounded = nearest(matrix(before[places[0]]), ROWS)
        for name, twin in replace_table(module, places).items():
            twin.fill(rounded, getattr(before[name], "bias", None))


def _all_linear(module: nn.Module) -> list[str]:
    from torch import nn

    return [name for name, each in module.named_modules() if isinstance(each, nn.Linear)]


def _kernels(module: nn.Module) -> dict[str, float]:
    """How many quantized layers each kernel computes on this machine."""
    from collections import Counter

    from reuselib.quantization.layers import IntegerLinear

    layers = [each for each in module.modules() if isinstance(each, IntegerLinear)]
    return _counted(Counter(each.kernel.name for each in layers))


def _counted(kernels: Mapping[str, int]) -> dict[str, float]:
    """As figures: `layers_on_fbgemm` and the like."""
    return {f"layers_on_{name}": float(count) for name, count in sorted(kernels.items())}
