"""An honest child of every adapter, made of tiny models: what forgeries are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.calibration.plan import Calibration
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.derivation.plan import plan
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_images, tiny_resnet, tiny_rows
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from reuselib.task import Task

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2)
FEW = Calibration(num_rows=16, batch_size=8)
INT4 = {"scheme": "int4-weight", "group_size": 16, "calibration": FEW}
OTHER = "./other"
"""In a setting: another model of the same shape."""

CHAINS: Mapping[str, Sequence[Adapter]] = {
    "finetune": [FineTune(train=("head", "block[-1:]"), fit=SHORT)],
    "lora": [LoRA(r=2, fit=SHORT)],
    "merge": [LoRA(r=2, fit=SHORT), Merge()],
    "average": [Merge(models=(ModelRef(OTHER),), weights=(0.75, 0.25))],
    "prune": [Prune(heads=0.5, ffn=0.5)],
    "prune-blocks": [Prune(blocks=(0,))],
    "prune-hidden": [Prune(hidden=0.25)],
    "prune-channels": [Prune(channels=0.5)],
    "sparsify": [Sparsify(sparsity=0.5)],
    "sparsify-2:4": [Sparsify(pattern="2:4")],
    "sparsify-wanda": [Sparsify(sparsity=0.5, method="wanda", calibration=FEW)],
    "sparsify-sparsegpt": [Sparsify(sparsity=0.5, method="sparsegpt", calibration=FEW)],
    "distill": [Prune(ffn=0.5), Distill(fit=SHORT)],
    "distill-teacher": [Distill(teachers=(ModelRef(OTHER),), fit=SHORT)],
    "distill-blocks": [Distill(blocks=(1,), fit=SHORT)],
    "quantize-int8": [Quantize(embeddings="int8")],
    "quantize-int4": [Quantize(scheme="int4-weight", group_size=16)],
    "quantize-gptq": [Quantize(method="gptq", **INT4)],  # type: ignore[arg-type]
    "quantize-awq": [Quantize(method="awq", **INT4)],  # type: ignore[arg-type]
    "quantize-smooth": [Quantize(smooth=0.5, calibration=FEW)],
    "quantize-bf16": [Quantize(scheme="bf16")],
    "quantize-trained": [Quantize(fit=SHORT)],
}
"""By name, the steps that lead to a child; each of our adapters, in each way in which it proves."""
OF_IMAGES = ("prune-channels",)


@dataclass(frozen=True)
class Honest:
    """Children in one store, each made when it is first asked for."""

    folder: Path
    """Empty, for everything that is made."""
    _made: dict[str, Path] = field(default_factory=dict[str, Path])

    @property
    def store(self) -> Path:
        """Where all of them are."""
        return self.folder / "store"

    @cached_property
    def base(self) -> Path:
        """What the children of text are made of."""
        return tiny_bert(self.folder / "base", head=True)

    @cached_property
    def other(self) -> Path:
        """Of the same shape, with other weights."""
        return tiny_bert(self.folder / "other", head=True, seed=9)

    @cached_property
    def images(self) -> Path:
        """What the children of images are made of."""
        return tiny_resnet(self.folder / "images")

    def child(self, name: str) -> Path:
        """The folder of a child."""
        if name not in self._made:
            base = self.images if name in OF_IMAGES else self.base
            self._made[name] = self.derive(base, CHAINS[name])
        return self._made[name]

    def twin(self, name: str) -> Path:
        """The same steps from the other model."""
        key = f"{name} of the other"
        if key not in self._made:
            base = (
                tiny_resnet(self.folder / "other-images", seed=9)
                if name in OF_IMAGES
                else self.other
            )
            self._made[key] = self.derive(base, CHAINS[name])
        return self._made[key]

    def derive(self, base: Path, steps: Sequence[Adapter]) -> Path:
        """Carry steps out."""
        of_images = base not in (self.base, self.other)
        task: Task = ImageClassification(size=32) if of_images else TextClassification()
        rows = tiny_images(16, size=16) if of_images else tiny_rows(32)
        settled = plan(
            base,
            [self._settled(step) for step in steps],
            task=task,
            data=Splits.of(rows, rows[:8]),
            store=self.store,
        )
        return execute(settled, Runtime()).children[-1].folder

    def _settled(self, step: Adapter) -> Adapter:
        from reuselib.derivation.plan import with_references

        return with_references(step, lambda _: ModelRef(str(self.other)))
