"""Merging: fold a LoRA adapter into its base, or average models of the same shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reuselib.adapter import Adapted, Adapter, Finding, Json, ModelRef, Run, Weights
from reuselib.errors import IncompatibleStep
from reuselib.measure.claims import bit_equal, same_bits, same_shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "base_model.model."
"""What peft puts in front of the names in an adapter's file."""

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

    def _fold(self, module: nn.Module, run: Run) -> Adapted:
        from peft.tuners.lora import LoraLayer

        config = module.peft_config["default"]
        layers = {
            n: m for n, m in module.get_base_model().named_modules() if isinstance(m, LoraLayer)
        }
        structure: Json = {
            "targets": sorted(layers),
            "transposed": sorted(name for name, layer in layers.items() if layer.fan_in_fan_out),
            "replaced": sorted(config.modules_to_save or ()),
            "scale": config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r),
            "dora": config.use_dora,
        }
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
        base, targets = parents[0], set(structure["targets"])
        taken = {n: f"{PREFIX}{n}" for n in child if n.rpartition(".")[0] in structure["replaced"]}
        wanted = {n for n in base if not n.startswith(PREFIX)} | {
            n.removeprefix(PREFIX) for n in base if n.startswith(PREFIX) and ".lora_" not in n
        }
        odd = sorted(wanted ^ set(child))
        yield Finding(
            "names are those of the base and of its new modules",
            not odd,
            tensor=next(iter(odd), ""),
        )
        wrong = next(
            (n for n, source in taken.items() if not same_bits(child[n], base[source])), ""
        )
        yield Finding(
            "modules trained in full are the adapter's, bit for bit", not wrong, tensor=wrong
        )
        merged = [f"{target}.weight" for target in sorted(targets) if f"{target}.weight" in child]
        yield bit_equal(
            "everything else is bit-equal to the base",
            base,
            child,
            [n for n in child if n not in {*merged, *taken}],
        )
        errors = {n: _relative_error(child[n], _folded(n, base, structure)) for n in merged}
        yield _within("every target equals base + scale x B x A", errors)

    def _prove_average(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        if len(parents) != len(self.shares):
            detail = f"{len(parents)} of {len(self.shares)} models are at hand"
            yield Finding("every tensor is the weighted average", None, detail)
            return
        yield same_shapes(parents[0], child)
        averaged = set(structure["averaged"])
        rest = [n for n in child if n not in averaged]
        yield bit_equal(
            "what is not a float is bit-equal to the first model's", parents[0], child, rest
        )
        errors = {
            n: _relative_error(
                child[n],
                sum(s * p[n].double() for s, p in zip(self.shares, parents, strict=True)).float(),
            )
            for n in child
            if n in averaged and all(n in p for p in parents)
        }
        yield _within("every tensor is the weighted average", errors)


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


def _folded(name: str, base: Weights, structure: Json) -> Tensor:
    """The weight that the recorded adapter gives when folded in, laid out as the base's, in fp32."""
    module = name.removesuffix(".weight")
    target = f"{PREFIX}{module}"
    a, b = base[f"{target}.lora_A.weight"].float(), base[f"{target}.lora_B.weight"].float()
    # GPT-2's Conv1D keeps its weight as [in, out]
    transposed = module in structure["transposed"]
    weight = base[name].float().T if transposed else base[name].float()
    delta = (b.flatten(1) @ a.flatten(1)).reshape(b.shape[0], *a.shape[1:])
    merged = weight + structure["scale"] * delta
    if structure["dora"]:
        magnitude = base[f"{target}.lora_magnitude_vector"].float().flatten()
        norm = merged.flatten(1).norm(dim=1)
        merged = merged * (magnitude / norm).reshape(-1, *[1] * (merged.dim() - 1))
    return merged.T if transposed else merged


def _relative_error(got: Tensor, wanted: Tensor) -> float:
    if got.shape != wanted.shape:
        return float("inf")
    return float((got.float() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))


def _within(claim: str, errors: Mapping[str, float]) -> Finding:
    # a NaN must not pass, so the comparison is turned round
    worst = max(
        errors,
        key=lambda name: errors[name] if errors[name] <= TOLERANCE else float("inf"),
        default="",
    )
    holds = not worst or errors[worst] <= TOLERANCE
    detail = (
        f"largest relative error {errors[worst]:.1e}, allowed {TOLERANCE:.0e}"
        if worst
        else "nothing to compare"
    )
    return Finding(f"{claim}, within {TOLERANCE:.0e}", holds, detail, "" if holds else worst)
