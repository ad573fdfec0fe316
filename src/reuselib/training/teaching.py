"""What a teacher says about rows: computed once, in batches, and looked up while a student learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.errors import IncompatibleStep
from reuselib.training.batching import costs, steady_batches
from reuselib.training.device import placed, target_device
from reuselib.training.objectives import top_probabilities
from reuselib.training.sights import hidden_sights, positions, relation_sights, watched
from reuselib.training.threads import all_cores

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.progress import Report
    from reuselib.task import Batch, Examples, Processor, Task
    from reuselib.training.lessons import Lesson

Part = Mapping[str, "Tensor"]
"""What a teacher says about some rows: `rows` [rows], `targets` [rows], and for each value its vectors one after
another, [positions of all rows, width], under its key, with how many each row has under `<key>.count` [rows]."""

PREFIX = "teacher."
"""In front of the keys of what is attached to a batch: then comes the number of the teacher, then the key."""

_COUNT = ".count"


@dataclass(frozen=True)
class Pupils:
    """Whom a teacher is to tell: rows as the teacher's own processor encodes them."""

    task: Task
    processor: Processor
    examples: Examples
    report: Report | None = None


def answers(
    module: nn.Module, lesson: Lesson, pupils: Pupils, rows: Sequence[int]
) -> Iterator[Part]:
    """What a network says about rows, a batch at a time.

    Args:
        module: the teacher; comes back on its device and in evaluation mode.
        lesson: what to keep.
        pupils: the rows, encoded.
        rows: their numbers; told about in an order of like lengths.

    Yields:
        Tensors on the CPU.
    """
    import torch

    from reuselib.progress import Progress

    task, device, done = pupils.task, target_device(), 0
    sights = [
        *hidden_sights(module, task.head(module), lesson.hidden_states),
        *relation_sights(module, lesson.relations),
    ]
    module.eval()
    with all_cores(), placed(module, device), watched(module, sights) as seen:
        lengths = costs(pupils.examples, task) or [1] * len(pupils.examples)
        for chosen in steady_batches(lengths, rows):
            batch = task.collate([pupils.examples[row] for row in chosen], pupils.processor)
            batch = {name: value.to(device) for name, value in batch.items()}
            with torch.inference_mode():
                logits = task.forward(module, batch)
                part = _answers(lesson, pupils, batch, logits, seen)
            yield {"rows": torch.tensor(chosen)} | {k: v.cpu().clone() for k, v in part.items()}
            done += len(chosen)
            if pupils.report is not None:
                pupils.report(Progress("teaching", done, len(rows)))


def _answers(
    lesson: Lesson, pupils: Pupils, batch: Batch, logits: Tensor, seen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    targets = targets_of_rows(pupils.task, batch)
    part: dict[str, Tensor] = {"targets": targets}
    if lesson.logits:
        outputs = pupils.task.predictions(logits, batch).float()
        outputs = outputs[..., : pupils.task.num_tokens(pupils.processor)]
        count = targets if len(outputs) == targets.sum() else targets.new_ones(len(targets))
        kept = {"logits": outputs}
        if lesson.top_k is not None:
            _refuse_idle(lesson.top_k, outputs.shape[-1])
            top = top_probabilities(outputs, lesson.top_k, lesson.temperature)
            kept = dict(zip(("top", "categories"), top, strict=True))
        for key, value in kept.items():
            part |= {key: value, key + _COUNT: count}
    for key, value in seen.items():
        flat, count = positions(value, batch.get("attention_mask"))
        part |= {key: flat.float(), key + _COUNT: count}
    return part


def _refuse_idle(top_k: int, num_categories: int) -> None:
    if top_k >= num_categories:
        raise IncompatibleStep(
            f"top_k={top_k} leaves nothing out: the task has {num_categories} categories",
            expected=f"less than {num_categories}",
            fix="leave out top_k",
        )


def targets_of_rows(task: Task, batch: Batch) -> Tensor:
    """Number of targets of each row [rows], int64."""
    import torch

    num_rows = len(next(iter(batch.values())))
    singles = ({key: value[at : at + 1] for key, value in batch.items()} for at in range(num_rows))
    return torch.tensor([task.num_targets(single) for single in singles])


@dataclass(frozen=True)
class Notes:
    """What one teacher said, by row."""

    parts: Sequence[Part]
    where: Mapping[int, tuple[int, int]] = field(init=False)
    """Row -> its part, and its place there."""
    ends: Sequence[Mapping[str, Sequence[int]]] = field(init=False)
    """By part and key: where each row's vectors end."""

    def __post_init__(self) -> None:
        where = {
            row: (number, place)
            for number, part in enumerate(self.parts)
            for place, row in enumerate(part["rows"].tolist())
        }
        ends = [
            {key: [0, *part[key + _COUNT].cumsum(0).tolist()] for key in keys(part)}
            for part in self.parts
        ]
        object.__setattr__(self, "where", where)
        object.__setattr__(self, "ends", ends)

    def of(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """What was said about rows, in their order: vectors one after another, by key, and `targets` [rows]."""
        import torch

        places = [self.where[row] for row in rows]
        told = {"targets": torch.stack([self.parts[n]["targets"][at] for n, at in places])}
        for key in keys(self.parts[0]):
            pieces = [
                self.parts[n][key][self.ends[n][key][at] : self.ends[n][key][at + 1]]
                for n, at in places
            ]
            told[key] = torch.cat(pieces)
        return told


def keys(part: Part) -> list[str]:
    """Of the values that a part holds."""
    return [key for key in part if key + _COUNT in part]


def joined(parts: Iterable[Part], num_bytes: int) -> Iterator[Part]:
    """The same rows in fewer parts, each of about `num_bytes`."""
    import torch

    waiting: list[Part] = []
    size = 0

    def flush() -> Part:
        return {key: torch.cat([part[key] for part in waiting]) for key in waiting[0]}

    for part in parts:
        waiting.append(part)
        size += sum(value.nbytes for value in part.values())
        if size >= num_bytes:
            yield flush()
            waiting, size = [], 0
    if waiting:
        yield flush()


def lost_mass(parts: Iterable[Part]) -> tuple[float, int]:
    """Probability outside of the kept categories, summed over targets, and the number of these; 0 if all were kept."""
    total, number = 0.0, 0
    for part in parts:
        if "top" in part:
            total += float((1 - part["top"].double().exp().sum(-1)).clamp(min=0).sum())
            number += len(part["top"])
    return total, number


@dataclass(frozen=True)
class Taught:
    """What all teachers say, to be attached to batches."""

    notes: Sequence[Notes]
    metrics: Mapping[str, float]

    @property
    def widths(self) -> dict[str, int]:
        """How wide the vectors of each value are, by the name that it has in a batch."""
        return {
            f"{PREFIX}{number}.{key}": notes.parts[0][key].shape[-1]
            for number, notes in enumerate(self.notes)
            for key in keys(notes.parts[0])
        }

    def __call__(self, rows: Sequence[int]) -> Batch:
        """What is told about rows, under `teacher.<number>.<key>`, and their numbers of targets."""
        return {
            f"{PREFIX}{number}.{key}": value
            for number, notes in enumerate(self.notes)
            for key, value in notes.of(rows).items()
        }
