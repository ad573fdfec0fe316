"""Answers of teachers that have shapes, but say nothing: what a student's loss is estimated with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.training.sights import RELATED
from reuselib.training.teaching import PREFIX

if TYPE_CHECKING:
    from torch import nn

    from reuselib.task import Batch, Examples, Processor, Task
    from reuselib.training.lessons import Lesson


@dataclass(frozen=True, kw_only=True)
class Mute:
    """What `Run.teach` gives, for networks without weights. Padding counts as if it were said something about."""

    task: Task
    examples: Examples
    processor: Processor
    lesson: Lesson
    teachers: Sequence[nn.Module | None]
    """Without their weights; None for the model before this step was compressed, which is as wide as the student."""
    student_width: int
    num_outputs: int

    @property
    def metrics(self) -> Mapping[str, float]:
        """None."""
        return {}

    @property
    def widths(self) -> Mapping[str, int]:
        """See `Taught`; only those that are not the student's own."""
        return {
            f"{PREFIX}{number}.hidden.{at}": self._width(teacher)
            for number, teacher in enumerate(self.teachers)
            for at in self.lesson.hidden_states
            if self._width(teacher) != self.student_width
        }

    def __call__(self, rows: Sequence[int]) -> Batch:
        """Tensors on the meta device."""
        import torch

        batch = self.task.collate([self.examples[row] for row in rows], self.processor)
        length = next(iter(batch.values())).shape[-1] if self.task.answers_positions else 1
        with torch.device("meta"):
            predicted = self._num_predicted(batch, length)
            told: dict[str, torch.Tensor] = {}
            for number, teacher in enumerate(self.teachers):
                vectors = torch.empty(self._num_positions(batch), self._width(teacher))
                said = {"targets": torch.empty(len(rows)), **self._outputs(predicted)}
                said |= {f"hidden.{at}": vectors.clone() for at in self.lesson.hidden_states}
                said |= {
                    f"{what}.{at}": vectors.clone()
                    for what in RELATED
                    for at in self.lesson.relations
                }
                told |= {f"{PREFIX}{number}.{key}": value for key, value in said.items()}
        return told

    def _outputs(self, predicted: int) -> Batch:
        import torch

        if not self.lesson.logits:
            return {}
        if self.lesson.top_k is None:
            return {"logits": torch.empty(predicted, self.num_outputs)}
        top = (predicted, self.lesson.top_k)
        return {"top": torch.empty(top), "categories": torch.empty(top, dtype=torch.int32)}

    def _num_predicted(self, batch: Batch, length: int) -> int:
        import torch

        from reuselib.measure.ledger import shape_of

        rows = len(next(iter(batch.values())))
        shape = (rows, length, 1) if self.task.answers_positions else (rows, 1)
        given = {**batch, "outputs": torch.empty(shape)}
        return shape_of(lambda each: self.task.predictions(each["outputs"], each), given)[0]

    def _num_positions(self, batch: Batch) -> int:
        mask = batch.get("attention_mask")
        return len(next(iter(batch.values()))) if mask is None else mask.numel()

    def _width(self, teacher: nn.Module | None) -> int:
        return getattr(getattr(teacher, "config", None), "hidden_size", None) or self.student_width
