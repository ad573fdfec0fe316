"""Merging: fold a LoRA adapter into its base, or average models of the same shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from reuselib.adapter import Adapted, Adapter, Finding, Json, ModelRef, Run, Streamed, Weights
from reuselib.adapters.folded import PREFIX, Error, Fold, fold_error, ranks, untouched
from reuselib.adapters.folding import Brought
from reuselib.errors import IncompatibleStep
from reuselib.lineage.structure import Structure
from reuselib.measure.chunks import pieces
from reuselib.measure.claims import bit_equal, same_shapes
from reuselib.network.sharing import own_names

if TYPE_CHECKING:
    from torch import Tensor, nn


NUM_DRIFT_ROWS = 64
"""Evaluation rows on which the change of the outputs is measured."""

TOLERANCE = 1e-6
"""Allowed difference to the recomputed fp32 sum, relative to the tensor's largest value: about eight units in the
last place, since another order of summation is not an error."""


@dataclass(frozen=True, kw_only=True)
class Merge(Adapter):
    """Make one dense model: of a base and its LoRA adapter, or as the weighted average of several models.

    Arithmetic is fp32. The largest change of an output against the unmerged model is measured and recorded.
    Averaging is that of model soups (Wortsman et al., 2022).
    """

    kind: ClassVar[str] = "merge"
    relation: ClassVar[str] = "merge"
    roles: ClassVar[Mapping[str, str]] = {"models": "merge-source"}

    models: tuple[ModelRef, ...] = ()
    """Models to average with the one before this step. Empty: fold the LoRA adapter in."""
    weights: tuple[float, ...] | None = None
    """Share of the model before this step and of each of `models`, adding up to 1. Null: equal shares."""

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        if not self.models:
            raise ValueError(
                "weights has no effect without models: a LoRA adapter is folded in as it was trained"
            )
        if len(self.weights) != len(self.models) + 1:
            raise ValueError(
                f"weights needs {len(self.models) + 1} numbers (the model before this step, then each of models), "
                f"got {len(self.weights)}"
            )
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights must add up to 1, got {sum(self.weights):g}")

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of every model in the average, the one before this step first."""
        num_models = len(self.models) + 1
        return self.weights or (1 / num_models,) * num_models

    def follow(self, form: str) -> str:
        """See `Adapter.follow`."""
        if self.models:
            return super().follow(form)
        if form == "quantized-adapter":
            raise IncompatibleStep(
                "`merge` would have to fold the LoRA update into integer weights, which cannot hold it: "
                "the sum would be rounded to the grid again, and the outputs would shift",
                expected="a LoRA adapter over floating-point weights",
                fix="keep the adapter as it is, or put `lora` and `merge` before `quantize`",
            )
        if form != "adapter":
            raise IncompatibleStep(
                f"`merge` folds a LoRA adapter into its base, but the model before it is of form '{form}'",
                expected="a `lora` step before it, or `models` to average with",
                fix="put `lora` before `merge`, or name the models to average",
            )
        return "dense"

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Return the dense module."""
        return self._average(module, run) if self.models else self._fold(module, run)

    @property
    def streams(self) -> bool:
        """See `Adapter.streams`; how far outputs move is then not measured."""
        return True

    def stream(self, module: nn.Module, weights: Weights, run: Run) -> Streamed:
        """See `Adapter.stream`."""
        if self.models:
            others = [run.weights(ref) for ref in self.models]
            return self._stream_average(module, weights, others)
        structure, layers = _folded(module)
        merged = cast("Any", module).unload()
        brought = Brought(weights, frozenset(own_names(merged)))
        told = Adapted(merged, structure=structure)
        return Streamed(merged, brought.tensors(layers), lambda: told)

    def _stream_average(
        self, module: nn.Module, weights: Weights, others: Sequence[Weights]
    ) -> Streamed:
        state = module.state_dict()
        for ref, other in zip(self.models, others, strict=True):
            _refuse_other_shape(ref, state, other)

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for name in own_names(module):
                value = weights[name]
                if value.is_floating_point():
                    total = self.shares[0] * value.double()
                    for other, share in zip(others, self.shares[1:], strict=True):
                        total += share * other[name].double()
                    value = total.to(value.dtype)
                yield name, value

        averaged = sorted(name for name, value in state.items() if value.is_floating_point())
        told = Adapted(module, structure={"averaged": averaged})
        return Streamed(module, tensors(), lambda: told)

    def outline(self, module: nn.Module, run: Run) -> Adapted:
        """See `Adapter.outline`."""
        return Adapted(module if self.models else cast("Any", module).merge_and_unload())

    def _fold(self, module: nn.Module, run: Run) -> Adapted:
        structure, _ = _folded(module)
        before = run.logits(module, NUM_DRIFT_ROWS)
        merged = module.merge_and_unload(safe_merge=True)
        drift = run.logits(merged, NUM_DRIFT_ROWS) - before
        metrics = {"drift_max_abs": float(drift.abs().max()), "drift_num_rows": float(len(before))}
        return Adapted(merged, structure=structure, metrics=metrics)

    def _average(self, module: nn.Module, run: Run) -> Adapted:
        import torch

        state = module.state_dict()
        total = {n: self.shares[0] * t.double() for n, t in state.items() if t.is_floating_point()}
        for ref, share in zip(self.models, self.shares[1:], strict=True):
            other = run.load(ref).state_dict()
            _refuse_other_shape(ref, state, other)
            for name in total:
                total[name] += share * other[name].double()
        with torch.no_grad():
            for name, value in total.items():
                state[name].copy_(value)
        return Adapted(module, structure={"averaged": sorted(total)})

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Targets equal the sum recomputed from the parents; everything else is bit-equal."""
        if self.models:
            yield from self._prove_average(parents, child, structure)
            return
        record = Fold.of_json(structure)
        yield from untouched(parents[0], child, record)
        targets = [f"{target}.weight" for target in record.targets]
        merged = [name for name in targets if name in child and name in parents[0]]
        absent = next((name for name in targets if name not in merged), "")
        claim = "every target equals base + scale x B x A"
        if absent or not merged:
            yield Finding(claim, False, "no target is there" if not merged else "missing", absent)
            return
        yield _within(claim, ((n, fold_error(n, child, parents[0], record)) for n in merged))

    def prove_record(self, before: Adapter, recorded: Json, structure: Json) -> Iterable[Finding]:
        """What is folded in is what the LoRA step before recorded, at its scale."""
        if self.models or before.kind != "lora":
            return
        record, fields = Fold.of_json(structure), _fields(before)
        lora = Structure.read(recorded, ("targets", "saved"))
        owners = {name.removeprefix(PREFIX).rpartition(".")[0] for name in lora.names("saved")}
        wanted = {
            "targets": set(lora.names("targets")),
            "replaced": owners,
            "scale": _scale(fields),
            "dora": fields["use_dora"],
        }
        found = {
            "targets": set(record.targets),
            "replaced": set(record.replaced),
            "scale": record.scale,
            "dora": record.dora,
        }
        odd = next((key for key in wanted if found[key] != wanted[key]), "")
        yield Finding(
            "what is folded in is the update of the step before, at its scale",
            not odd,
            f"{odd}: recorded {found[odd]}, the step before says {wanted[odd]}" if odd else "",
        )

    def prove_across(
        self, before: Adapter, parent: Weights, child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Without the LoRA adapter, what it changed must still be of its rank, and nothing else may have changed."""
        if self.models or before.kind != "lora":
            return
        record, rank = Fold.of_json(structure), int(_fields(before)["r"])
        yield from untouched(parent, child, record)
        yield from ranks(parent, child, record, rank)
        yield Finding(
            "the update is scaled by lora_alpha / r", None, "a scaled update has the same rank"
        )

    def _prove_average(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        averaged = Structure.read(structure, ("averaged",)).names("averaged")
        claim = "every tensor is the weighted average"
        if len(parents) != len(self.shares):
            detail = f"{len(parents)} of {len(self.shares)} models are at hand"
            yield Finding(claim, None, detail)
            return
        shapes = [same_shapes(parent, child) for parent in parents]
        shape = next((each for each in shapes if not each.holds), shapes[0])
        yield shape
        if not shape.holds:
            return
        floats = {name for name in child if child[name].is_floating_point()}
        odd = min(floats ^ set(averaged), default="")
        yield Finding("what is averaged is every tensor of floats", not odd, tensor=odd)
        rest = [name for name in child if name not in floats]
        yield bit_equal(
            "what is not a float is bit-equal to the first model's", parents[0], child, rest
        )
        names = (name for name in child if name in floats)
        yield _within(claim, ((n, self._average_error(n, parents, child)) for n in names))

    def _average_error(self, name: str, parents: Sequence[Weights], child: Weights) -> float:
        tensors, got = [parent[name] for parent in parents], child[name]
        error = Error()
        for rows in pieces(got.shape):
            each = [_rows(tensor, rows).double() for tensor in tensors]
            wanted = sum(share * part for share, part in zip(self.shares, each, strict=True))
            error.add(_rows(got, rows), cast("Tensor", wanted).float())
        return error.relative


def _folded(module: Any) -> tuple[dict[str, Json], dict[str, Any]]:
    """What is recorded of the adapter in a network, and its layers by name."""
    from peft.tuners.lora import LoraLayer

    config = module.peft_config["default"]
    layers = {n: m for n, m in module.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    structure: dict[str, Json] = {
        "targets": [*sorted(layers)],
        "transposed": [*sorted(name for name, each in layers.items() if each.fan_in_fan_out)],
        "replaced": [*sorted(config.modules_to_save or ())],
        "scale": config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r),
        "dora": config.use_dora,
    }
    return structure, layers


def _fields(lora: Adapter) -> dict[str, Any]:
    return cast("dict[str, Any]", lora.describe()["lora"])


def _scale(lora: Mapping[str, Any]) -> float:
    """By what a LoRA step multiplies its update, see `LoRA.lora_alpha`."""
    rank = int(lora["r"])
    alpha = lora["lora_alpha"] or 2 * rank
    return alpha / (rank**0.5 if lora["use_rslora"] else rank)


def _refuse_other_shape(
    ref: ModelRef, state: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> None:
    for name in sorted(state.keys() | other.keys()):
        if name not in state or name not in other or state[name].shape != other[name].shape:
            raise IncompatibleStep(
                f"{ref.source} cannot be averaged with the model before `merge`: they differ at tensor {name}",
                expected="models with the same names and shapes",
                fix="average models derived from the same base with the same head",
            )


def _rows(tensor: Tensor, rows: slice) -> Tensor:
    return tensor[rows] if tensor.dim() else tensor


def _within(claim: str, errors: Iterable[tuple[str, float]]) -> Finding:
    worst, number = 0.0, 0
    for name, error in errors:
        # a NaN must not pass, so the comparison is turned round
        if not error <= TOLERANCE:
            detail = f"relative error {error:.1e}, allowed {TOLERANCE:.0e}"
            return Finding(f"{claim}, within {TOLERANCE:.0e}", False, detail, name)
        worst, number = max(worst, error), number + 1
    detail = f"largest relative error {worst:.1e}, allowed {TOLERANCE:.0e}"
    return Finding(f"{claim}, within {TOLERANCE:.0e}", True, detail, compared=number)
