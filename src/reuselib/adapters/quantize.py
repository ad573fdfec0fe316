"""Quantization: weights as small integers, computed with by the fastest kernel there is, or in 16 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Streamed, Weights, as_json
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep
from reuselib.lineage.structure import Structure, malformed
from reuselib.quantization.schemes import HALF, INTEGER, KEPT, Activations, Scheme, scheme
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from torch import nn

    from reuselib.quantization.factors import Factored


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
        from reuselib.quantization.interchange import declare, linear_names
        from reuselib.quantization.layers import kernels
        from reuselib.quantization.replacing import round_layers, round_tables

        structure, schemes = self._planned(module, run)
        linear = linear_names(module)
        metrics = {} if self.fit is None else self._train(module, run, schemes)
        round_tables(module, structure["tables"])
        if self._looks_at_data:
            structure |= self._solve(module, run, schemes)
        else:
            round_layers(module, schemes)
        declare(module, schemes, structure["tables"], linear)
        return Adapted(module, structure=structure, metrics={**metrics, **kernels(module)})

    def _planned(self, module: nn.Module, run: Run) -> tuple[dict[str, Any], dict[str, Scheme]]:
        """What is recorded of the layers to round, and how each is; looks at no weights."""
        from reuselib.network.layers import is_transposed
        from reuselib.quantization.choosing import refuse_new
        from reuselib.quantization.replacing import token_tables

        named = self._chosen(module, run.task.head(module))
        refuse_new(named, run.fresh)
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
        from reuselib.quantization.faking import rounding

        with rounding(module, schemes):
            return run.fit(module, cast("FitPlan", self.fit))

    def _solve(self, module: nn.Module, run: Run, schemes: Mapping[str, Scheme]) -> dict[str, Json]:
        """Round with an eye on calibration rows; what `prove` needs besides."""
        from reuselib.quantization.solving import Method, solve

        rows = run.batches(self.calibration.num_rows, batch_size=self.calibration.batch_size)
        solved = solve(module, run.task, rows, schemes, Method(self.method, self.smooth))
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
        from reuselib.quantization.interchange import declare, linear_names
        from reuselib.quantization.kernels import figures
        from reuselib.quantization.streaming import Rounding, halved

        if self.scheme in HALF:
            dtype = HALF[self.scheme]
            told = Adapted(module, {"new": []}, stock=True, dtype=dtype)
            tensors = halved(module, weights, dtype)
            return Streamed(module.to(getattr(torch, dtype)), tensors, lambda: told)
        before, linear = own_names(module), linear_names(module)
        structure, schemes = self._planned(module, run)
        with torch.device("meta"):
            child = self.rebuild(module, structure)
        tables, transposed = structure["tables"], frozenset(structure["transposed"])
        declare(child, schemes, tables, linear)
        rounding = Rounding(schemes, tables, transposed)

        def adapted() -> Adapted:
            return Adapted(child, structure=structure, metrics=figures(rounding.kernels))

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
        from reuselib.quantization.halving import prove_half
        from reuselib.quantization.proof import as_asked

        if self.scheme in HALF:
            new = Structure.read(structure, ("new",)).names("new")
            yield truly_new(new, parents[0])
            yield from prove_half(parents[0], child, HALF[self.scheme], new)
            return
        record = _read(structure)
        factored = [Factored.of(each) for each in record.items("factored")]
        yield truly_new(record.names("new"), parents[0])
        recorded = as_asked(
            record,
            factored,
            schemes={self.scheme, *self.schemes.values()} & set(INTEGER),
            rescales=self.smooth is not None or self.method == "awq",
            embeddings=self.embeddings is not None,
        )
        yield recorded
        if not recorded.holds:
            return
        yield from self._prove_rounding(parents[0], child, record, factored)

    def _prove_rounding(
        self, parent: Weights, child: Weights, record: Structure, factored: Sequence[Factored]
    ) -> Iterator[Finding]:
        """Claims about a child whose record is as asked."""
        from reuselib.quantization.factors import Prepared, fitting
        from reuselib.quantization.pairs import Pair
        from reuselib.quantization.proof import prove_layers

        if factored:
            fits, unseen = fitting(factored, parent)
            yield from (fits, unseen)
            if not fits.holds:
                return
        pair = Pair(
            parent=parent,
            child=child,
            layers={name: self._scheme(kind) for name, kind in record.texts("layers").items()},
            tables=record.groups("tables"),
            transposed=frozenset(record.names("transposed")),
            new=frozenset(record.names("new")),
            prepared=Prepared(parent, factored),
        )
        trained = self.fit is not None
        yield from prove_layers(pair, record, method=self.method, trained=trained)


def _read(structure: Json) -> Structure:
    """What a child with integer weights records."""
    needed = ("new", "layers", "tables", "transposed")
    return Structure.read(structure, needed, optional=("factored", "changes"))
