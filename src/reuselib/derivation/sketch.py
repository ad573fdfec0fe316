"""A step on a network without weights: what an adapter is handed when memory is estimated, and what it asks for.

Parameters are on the meta device, so nothing is read of a model but its configuration and the headers of its files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reuselib.adapter import Adapted, Adapter, Attach, Json, ModelRef, Objective, Taught
from reuselib.data.rows import take
from reuselib.derivation.mute import Mute
from reuselib.derivation.trainings import Training, of_fit
from reuselib.errors import ReuseError
from reuselib.training import checks
from reuselib.training.batching import costs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from reuselib.data import Splits
    from reuselib.lineage.store import Store
    from reuselib.task import Batch, Examples, Loaded, Processor, Rows, Task
    from reuselib.training.lessons import Lesson as Said
    from reuselib.training.plan import FitPlan, ParameterGroup

MAX_ROWS = 20_000
"""Rows of a split that are encoded to see how long they are; of more, every second, third, ... is."""
SMALL = 2**20
"""Bytes up to which a buffer has values: positions, running statistics, which adapters compare before and after."""


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A `Run` for networks without weights, which notes what was asked for."""

    task: Task
    rows: Splits | None
    processor: Processor
    seed: int
    device: torch.device
    open: Callable[[ModelRef], nn.Module]
    """Any model, without its weights."""
    student: nn.Module | None = None
    """The network before the step."""
    num_processes: int = 1
    form: str = "dense"
    fresh: frozenset[str] = frozenset()
    trainings: list[Training] = field(default_factory=list[Training])
    looked: list[Batch] = field(default_factory=list["Batch"])
    """Batches that were to be calibrated with."""
    lessons: list[Said] = field(default_factory=list["Said"])
    """What teachers were asked for."""
    encoded: dict[str, Examples] = field(default_factory=dict[str, "Examples"])
    """Rows by split, see `examples`."""

    @property
    def splits(self) -> Splits:
        """The rows.

        Raises:
            DataError: the recipe names no data.
        """
        from reuselib.data.splits import required

        return required(self.rows)

    def fit(
        self,
        module: nn.Module,
        plan: FitPlan,
        *,
        groups: Sequence[ParameterGroup] = (),
        objective: Objective | None = None,
        attach: Attach | None = None,
    ) -> dict[str, float]:
        """Note what the training would take; nothing is trained."""
        checks.check(plan, self.splits.train, None if plan.early_stopping is None else [{}])
        self.trainings.append(of_fit(self, module, plan, objective, attach))
        return {}

    def evaluate(self, module: nn.Module, split: str = "test") -> dict[str, float]:
        """Nothing is measured."""
        return {}

    def batches(
        self, num_rows: int, *, split: str = "train", batch_size: int = 32
    ) -> Sequence[Batch]:
        """Real rows, as far as they are encoded here: shapes count."""
        examples = self.examples(split)
        chosen = sorted(islice(examples, num_rows), key=self.task.length)
        found = [
            self.task.collate(chosen[at : at + batch_size], self.processor)
            for at in range(0, len(chosen), batch_size)
        ]
        self.looked.extend(found)
        return found

    def logits(self, module: nn.Module, num_rows: int) -> Tensor:
        """A number, since there are no weights."""
        import torch

        return torch.zeros(1)

    def example(self) -> Batch:
        """Two rows of inputs without targets, on the meta device; no mask, whose numbers networks look at."""
        batch = self.task.collate(list(islice(self.examples("train"), 2)), self.processor)
        inputs = self.task.inputs(batch).items()
        return {name: each.to("meta") for name, each in inputs if name != "attention_mask"}

    def recall(self, name: str) -> Json:
        """Nothing was found yet."""
        return None

    def load(self, ref: ModelRef) -> nn.Module:
        """Another model without its weights."""
        return self.open(ref)

    def origin(self) -> nn.Module:
        """Not known here; see `budget`."""
        raise NotImplementedError

    def teach(self, teachers: Sequence[ModelRef], lesson: Said, plan: FitPlan) -> Taught:
        """Note the lesson; nobody says anything."""
        self.lessons.append(lesson)
        config = getattr(self.student, "config", None)
        outputs = "vocab_size" if self.task.answers_positions else "num_labels"
        return Mute(
            task=self.task,
            examples=self.examples("train"),
            processor=self.processor,
            lesson=lesson,
            teachers=[self.open(ref) for ref in teachers] or [None],
            student_width=getattr(config, "hidden_size", None) or 1,
            num_outputs=getattr(config, outputs, None) or 1,
        )

    def examples(self, split: str) -> Examples:
        """The rows of a split, encoded; of very many only some."""
        if split not in self.encoded:
            rows = sampled(getattr(self.splits, split))
            self.encoded[split] = self.task.encode(rows, self.processor)
        return self.encoded[split]

    def longest(self, split: str, num_rows: int) -> Batch:
        """The longest rows of a split."""
        examples = self.examples(split)
        lengths = costs(examples, self.task) or [1] * len(examples)
        order = sorted(range(len(examples)), key=lambda row: -lengths[row])[:num_rows]
        return self.task.collate([examples[row] for row in order], self.processor)


def sketch_step(adapter: Adapter, module: nn.Module, run: Sketch) -> tuple[Adapted, str]:
    """What a step makes of a network without weights, which stays as it is; and what could not be told.

    An adapter that says nothing about networks without weights is taken to leave shapes as they are.
    """
    own = copy.deepcopy(module)
    try:
        return adapter.outline(own, cast("Any", run)), ""
    except ReuseError:
        raise
    except Exception as error:  # noqa: BLE001 - strangers may look at weights in any way
        if run.trainings:  # what followed looked at what was learned
            return Adapted(own), ""
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return Adapted(module), f"'{adapter.kind}' does not say what it does to a model: {reason}"


def sketch_model(folder: Path, task: Task, store: Store) -> Loaded:
    """As `sketch_network`, with zeros in small buffers, so that they can be compared."""
    import torch

    from reuselib.model.sketching import sketch_network

    loaded = sketch_network(folder, task, store)
    for part in loaded.module.modules():
        for name, value in part._buffers.items():
            if value is not None and value.is_meta and value.nbytes <= SMALL:
                part._buffers[name] = torch.zeros(value.shape, dtype=value.dtype, device="cpu")
    return loaded


def sampled(rows: Rows) -> Rows:
    """The rows, or so many of them, spread evenly, that encoding them takes a moment."""
    every = -(-len(rows) // MAX_ROWS)
    return rows if every <= 1 else take(rows, range(0, len(rows), every))
