"""Images to labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from reuselib.errors import DataError
from reuselib.task import Batch, Beliefs, Examples, Loaded, Processor, Rows, Task
from reuselib.tasks import columns, images, outputs, placing, pretrained, scores

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.data import Splits

_PROBLEM = "single_label_classification"


@dataclass(frozen=True, kw_only=True)
class ImageClassification(Task):
    """Give an image one label."""

    kind: ClassVar[str] = "image_classification"
    metric: ClassVar[str] = "accuracy"  # type: ignore[misc]

    image: str = "image"
    """Column with the image: a PIL image, or an array of bytes (height, width) or (height, width, 3)."""
    label: str = "label"
    """Column with the label."""
    labels: tuple[str, ...] | None = None
    """The labels in the order of the network's outputs; null: those of the training rows, sorted."""
    size: int | None = None
    """Side in pixels to which images are scaled, for a model that comes without an image processor; null:
    as the model's configuration says, otherwise 224."""

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise DataError(f"size is {self.size}", expected="at least 1 pixel")
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise DataError(f"labels holds one label twice: {self.labels}", fix="remove one")

    # Rows.

    def pin(self, splits: Splits) -> ImageClassification:
        """Check the columns and fill in the labels."""
        columns.require_columns(splits, (self.image, self.label))
        return replace(self, labels=columns.find_labels(splits, self.label, self.labels))

    # The network.

    def load(self, folder: Path, *, trust_remote_code: bool = False) -> Loaded:
        """Read the network; its head is new if the folder has none for these labels."""
        from transformers import AutoModelForImageClassification

        config = pretrained.read_config(folder, trust_remote_code=trust_remote_code)
        new_head = outputs.describes_others(config, self.labels)
        self._describe(config)
        processor = images.read_processor(
            folder, config, size=self.size, trust_remote_code=trust_remote_code
        )
        loaded = pretrained.read_network(
            AutoModelForImageClassification,
            folder,
            config,
            trust_remote_code=trust_remote_code,
            new_head=new_head,
        )
        return replace(loaded, processor=processor)

    def skeleton(self, folder: Path) -> nn.Module:
        """The network of the folder's configuration, without its weights."""
        from transformers import AutoModelForImageClassification

        config = pretrained.read_config(folder)
        self._describe(config)
        return pretrained.skeleton(AutoModelForImageClassification, config)

    def processor(self, folder: Path) -> Processor:
        """The folder's image processor."""
        return images.read_processor(folder, pretrained.read_config(folder), size=self.size)

    def save(self, module: nn.Module, processor: Processor, folder: Path) -> None:
        """Write what `AutoModelForImageClassification` and `AutoImageProcessor` read."""
        pretrained.save(module, processor, folder)

    def write(
        self,
        module: nn.Module,
        processor: Processor,
        folder: Path,
        tensors: Iterable[tuple[str, Tensor]],
    ) -> None:
        """See `Task.write`."""
        pretrained.save(module, processor, folder, tensors)

    def place(self, sketch: Loaded, folder: Path) -> Loaded | None:
        """See `Task.place`; a head for other labels is not taken over."""
        new_head = outputs.describes_others(pretrained.read_config(folder), self.labels)
        return placing.place(sketch, folder, heads=self.head(sketch.module), new_head=new_head)

    def head(self, module: nn.Module) -> tuple[str, ...]:
        """What lies outside the base model, such as `classifier`."""
        return pretrained.head(module)

    # Batches.

    def encode(self, rows: Rows, processor: Processor) -> Examples:
        """Pixels of each row, computed when they are asked for, and its label where it has one."""
        if self.labels is None:
            raise DataError(
                "the labels of this task are not known yet",
                expected="a task that `pin` has completed",
                fix="call `task = task.pin(splits)`, or set `labels`",
            )
        targets = None
        if columns.has_column(rows, self.label):
            targets = columns.label_indices(columns.column(rows, self.label), self.labels)
        return images.LazyImages(rows, self.image, targets, processor)

    def collate(self, examples: Sequence[Mapping[str, Any]], processor: Processor) -> Batch:
        """Stack."""
        import numpy as np
        import torch

        batch = {"pixel_values": torch.from_numpy(np.stack([e["pixel_values"] for e in examples]))}
        if "labels" in examples[0]:
            targets = np.array([example["labels"] for example in examples], dtype=np.int64)
            batch["labels"] = torch.from_numpy(targets)
        return batch

    def inputs(self, batch: Batch) -> Batch:
        """The pixels."""
        return {"pixel_values": batch["pixel_values"]}

    def num_targets(self, batch: Batch) -> int:
        """Rows."""
        return len(batch["labels"])

    # Learning.

    @property
    def meaning(self) -> Literal["categories"]:
        """One label is right."""
        return "categories"

    def answers(self, logits: Tensor) -> list[Any]:
        """The label of each row."""
        return outputs.answers(logits, self.labels or ())

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy: summed, in fp32."""
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), batch["labels"], reduction="sum")

    def observe(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Logits and labels."""
        return {"logits": logits.float(), "labels": batch["labels"]}

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """Accuracy, macro F1 and loss."""
        return scores.single_label(observed["logits"], observed["labels"])

    # Measuring.

    @property
    def metric_names(self) -> tuple[str, ...]:
        """See `metrics`."""
        return ("accuracy", "f1", "loss")

    def sums(self, observed: Mapping[str, Tensor]) -> Tensor:
        """What decides every metric."""
        return scores.single_label_sums(observed["logits"], observed["labels"])

    def metrics_of(self, sums: Tensor) -> dict[str, Tensor]:
        """Every metric."""
        return scores.single_label_of(sums)

    def beliefs(self, observed: Mapping[str, Tensor]) -> Beliefs | None:
        """Probabilities of the labels."""
        logits, labels = observed["logits"], observed["labels"]
        return outputs.beliefs(logits, labels, self.labels or (), "single_label")

    def row_losses(self, observed: Mapping[str, Tensor]) -> Tensor:
        """As in `loss`, of each row."""
        return scores.losses(observed["logits"], observed["labels"])

    # Inside.

    def _describe(self, config: Any) -> None:
        if self.labels is not None:
            outputs.describe(config, self.labels, _PROBLEM)
