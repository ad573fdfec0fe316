"""Low-rank adaptation (Hu et al., 2021, https://arxiv.org/abs/2106.09685), through peft."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Weights
from reuselib.errors import IncompatibleStep, IntegrityError
from reuselib.lineage.structure import Structure
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import nn

PREFIX = "base_model.model."
"""What peft puts in front of a module's name in `adapter_model.safetensors`."""


LINEAR = ("Linear", "Conv1D")
"""Types of linear layers; Conv1D is that of GPT-2, which keeps its weight as [in, out]."""
QUANTIZED = frozenset({"QuantizedLinear", "PackedLinear"})
"""Types of linear layers with integer weights, see `quantization.layers`; an update over them is QLoRA (Dettmers et
al., 2023)."""
LAYERS = frozenset({*LINEAR, *QUANTIZED, "NonDynamicallyQuantizableLinear", "Conv2d"})
"""Types that can be adapted."""


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """Learn a low-rank update beside frozen linear layers. The child holds the update only, as a plain peft adapter.

    A head that the base does not hold is trained in full and saved with the adapter.
    """

    kind: ClassVar[str] = "lora"
    relation: ClassVar[str] = "adapter"
    whole: ClassVar[bool] = False

    r: int = 8
    """Rank of the update."""
    lora_alpha: int | None = None
    """The update is scaled by `lora_alpha / r`, or `lora_alpha / sqrt(r)` with rsLoRA; null means `2 * r`."""
    lora_dropout: float = 0.0
    """Dropout on the input of the update while training."""
    use_rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski, 2023)."""
    use_dora: bool = False
    """Learn the magnitude of each output apart from its direction (Liu et al., 2024); about 1.3 times slower."""
    target_modules: tuple[str, ...] | None = None
    """Selectors of the layers to adapt, such as `op:Linear` or `*.query`; null: every linear layer. The head is never
    among them."""
    last_blocks: int | None = None
    """Adapt only the last so many blocks, such as 2 of 6."""
    fit: FitPlan = FitPlan()
    """How to train."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError(f"r must be at least 1, got {self.r}")
        if self.last_blocks is not None and self.last_blocks < 1:
            raise ValueError(f"last_blocks must be at least 1, got {self.last_blocks}")

    def follow(self, form: str) -> str:
        """See `Adapter.follow`."""
        if form == "sparse":
            raise IncompatibleStep(
                "a low-rank update is dense: merged into a sparse model it would fill the zeros",
                expected="a dense or a quantized model",
                fix="put `lora` and `merge` before `sparsify`; `finetune` and `distill` keep the zeros",
            )
        if form == "quantized":
            return "quantized-adapter"
        super().follow(form)
        return "adapter"

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Inject the layers, train them and whatever the base does not hold."""
        head = run.task.head(module)
        structure: Json = {
            "targets": self._targets(module, head),
            "saved": sorted(run.fresh),
        }
        adapted = self.rebuild(module, structure)
        metrics = run.fit(adapted, self.fit)
        return Adapted(adapted, structure=structure, metrics=metrics)

    def _targets(self, module: nn.Module, head: Sequence[str]) -> list[str]:
        from reuselib.network.selectors import select_modules

        suffix = f" & block[-{self.last_blocks}:]" if self.last_blocks else ""
        # one that only borrows its weight, such as an output layer tied to the embedding, is nothing to select
        own = {name.rpartition(".")[0] for name, _ in module.named_parameters()}
        present = {type(each).__name__ for name, each in module.named_modules() if name in own}
        chosen = (
            self.target_modules
            or [f"op:{kind}" for kind in LINEAR if kind in present]
            or ["op:Linear"]
        )
        selectors = [f"{selector}{suffix}" for selector in chosen]
        found = select_modules(module, selectors, head=head)
        targets = [n for n in found if not any(n == h or n.startswith(f"{h}.") for h in head)]
        kinds = {type(module.get_submodule(name)).__name__ for name in targets}
        _refuse_other_layers(kinds)
        if self.use_dora and kinds & QUANTIZED:
            raise IncompatibleStep(
                "use_dora splits a weight into magnitude and direction, which integer weights have no room for",
                expected="layers with floating-point weights",
                fix="leave use_dora out, or put `lora` and `merge` before `quantize`",
            )
        if not targets:
            raise IncompatibleStep(
                f"target_modules={list(chosen)} matches nothing but the head",
                expected="layers of the backbone, such as `op:Linear`",
                fix="name other layers in target_modules, or leave it out for every linear layer",
            )
        return targets

    def _config(self, structure: Json) -> LoraConfig:
        from peft import LoraConfig

        record = _read(structure)
        return LoraConfig(
            r=self.r,
            lora_alpha=self.lora_alpha or 2 * self.r,
            lora_dropout=self.lora_dropout,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            target_modules=list(record.names("targets")),
            modules_to_save=sorted({_owner(name) for name in record.names("saved")}) or None,
        )

    def rebuild(self, module: nn.Module, structure: Json) -> PeftModel:
        """Inject the recorded layers again."""
        import warnings

        from peft import get_peft_model

        with warnings.catch_warnings():
            # peft asks transformers by a name that will go away; nothing that a user could mend
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            # and it sets this option right by itself, layer by layer
            warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
            return get_peft_model(module, self._config(structure))

    def save(self, module: PeftModel, folder: Path) -> None:
        """Write `adapter_config.json` and `adapter_model.safetensors`, nothing else and no path of this machine."""
        config = module.peft_config["default"]
        base = config.base_model_name_or_path
        if base and Path(base).is_absolute():
            # peft copies where the base was loaded from; the manifest names the base by digest instead
            config.base_model_name_or_path = None
            module.get_base_model().__dict__.pop("name_or_path", None)
        # peft keeps sets, whose order differs from process to process, and so would the file
        config.target_modules = sorted(config.target_modules)
        config.modules_to_save = sorted(config.modules_to_save) if config.modules_to_save else None
        module.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)

    def load(self, module: PeftModel, folder: Path) -> None:
        """Load what `save` wrote; a tensor too many or too few is an error (peft ignores both)."""
        from peft import get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file

        tensors = load_file(folder / "adapter_model.safetensors")
        wanted = get_peft_model_state_dict(module)
        if odd := sorted(wanted.keys() ^ tensors.keys()):
            raise IntegrityError(
                "MISSING_TENSOR" if odd[0] in wanted else "UNKNOWN_TENSOR",
                f"the adapter's tensors do not fit its configuration: {odd[0]}",
                path="adapter_model.safetensors",
                tensor=odd[0],
            )
        set_peft_model_state_dict(module, tensors)

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Only adapter tensors; each target exists in the base with matching sizes; the rank is the claimed one."""
        record = _read(structure)
        parent, targets, saved = parents[0], record.names("targets"), record.names("saved")
        parts = (
            "lora_A.weight",
            "lora_B.weight",
            *(["lora_magnitude_vector"] if self.use_dora else []),
        )
        wanted = {f"{PREFIX}{name}" for name in saved}
        wanted |= {f"{PREFIX}{target}.{part}" for target in targets for part in parts}
        extra, lacking = sorted(set(child) - wanted), sorted(wanted - set(child))
        yield _none_of("holds nothing but the recorded layers and newly trained tensors", extra)
        yield _none_of("every recorded layer and every newly trained tensor is there", lacking)
        complete = [t for t in targets if all(_factor(t, side) in child for side in "AB")]
        name, detail = next(self._misfits(parent, child, complete), ("", ""))
        if not complete:
            detail = "no layer is adapted"
        claim = f"every update has rank {self.r} and fits its layer"
        yield Finding(claim, bool(complete) and not name, detail, name)
        known = [n for n in saved if n in parent]
        yield _none_of("tensors trained in full are new: the base does not hold them", known)

    def _misfits(
        self, parent: Weights, child: Weights, targets: Sequence[str]
    ) -> Iterator[tuple[str, str]]:
        for target in targets:
            weight, packed = f"{target}.weight", f"{target}.weight_shape"
            if weight not in parent and packed not in parent:
                yield weight, "the base has no such tensor"
                continue
            a, b = child[_factor(target, "A")], child[_factor(target, "B")]
            shape = parent[packed].tolist() if packed in parent else parent[weight].shape
            if a.dim() < 2 or b.dim() < 2 or a.shape[0] != self.r or b.shape[1] != self.r:
                yield _factor(target, "A"), f"rank {a.shape[0] if a.dim() else 0}"
            # Conv1D keeps the transpose of a linear layer's weight
            elif tuple(shape[:2]) not in {(b.shape[0], a.shape[1]), (a.shape[1], b.shape[0])}:
                yield weight, f"update {b.shape[0]} x {a.shape[1]}, layer {tuple(shape)}"
            elif not (a.isfinite().all() and b.isfinite().all()):
                yield _factor(target, "A"), "not all of it is finite"
            elif self.use_dora:
                yield from _other_magnitude(target, child, b.shape[0])


def _read(structure: Json) -> Structure:
    return Structure.read(structure, ("targets", "saved"))


def _other_magnitude(target: str, child: Weights, num_outputs: int) -> Iterator[tuple[str, str]]:
    name = f"{PREFIX}{target}.lora_magnitude_vector"
    if name in child and child[name].numel() != num_outputs:
        yield name, f"{child[name].numel()} magnitudes for {num_outputs} outputs"


def _refuse_other_layers(found: set[str]) -> None:
    if other := sorted(found - LAYERS):
        raise IncompatibleStep(
            f"target_modules selects a layer of type {other[0]}, which has no low-rank form here",
            expected=f"layers of type {', '.join(sorted(LAYERS))}",
            fix="narrow target_modules, for instance with `op:Linear & block[:]`",
        )


def _none_of(claim: str, names: Sequence[str]) -> Finding:
    return Finding(
        claim, not names, f"{len(names)} more" if names[1:] else "", next(iter(names), "")
    )


def _factor(target: str, side: str) -> str:
    return f"{PREFIX}{target}.lora_{side}.weight"


def _owner(name: str) -> str:
    return name.removeprefix(PREFIX).rpartition(".")[0]
