"""What a training is given and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.progress import Report
from reuselib.training.activations import Shelf
from reuselib.training.plan import ParameterGroup
from reuselib.training.replay import Replay
from reuselib.training.state import Keeper

if TYPE_CHECKING:
    from reuselib.adapter import Attach, Objective
    from reuselib.lineage.trail import Trail
    from reuselib.task import Examples, Processor, Task
    from reuselib.training.checkpointing import Saver


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train on, and whom to tell."""

    task: Task
    processor: Processor
    train: Examples
    validation: Examples | None = None
    """Looked at after each epoch when the plan stops early; otherwise not at all."""
    seed: int = 0
    groups: Sequence[ParameterGroup] = ()
    objective: Objective | None = None
    """Replaces the task's loss; like it, summed over the batch's targets."""
    attach: Attach | None = None
    """What the objective finds in a batch besides the task's tensors."""
    sparse: Sequence[str] = ()
    """Names of parameters whose zeros stay zero."""
    trackers: tuple[str, ...] = ()
    """Names that accelerate knows, such as `tensorboard`."""
    logging_dir: Path | None = None
    report: Report | None = None
    trail: bool = True
    """Whether to take digests of the state on the way; they change no weight."""
    shelf: Shelf | None = None
    """Where outputs of frozen blocks may be kept; None: nowhere, and they are computed in every epoch."""
    keeper: Keeper | None = None
    """Keeps states on the way, in one process only."""
    saver: Saver | None = None
    """Keeps checkpoints, and goes on from the newest."""
    replay: Replay | None = None
    """What of a recorded training to do again."""


@dataclass(frozen=True)
class FitResult:
    """How the training went."""

    metrics: dict[str, float]
    """`train_loss` (mean over the targets of the last epoch), `num_steps`, `num_examples`, `epochs`, `seconds`,
    `examples_per_second`; with early stopping also `best_epoch` (from 0) and `validation_<metric>`."""
    facts: dict[str, str | int]
    """In what way: `precision`, `device`, `num_processes`, `num_threads`."""
    trail: Trail | None = None
    """Digests of the state on the way; only the first of several processes has it."""
    trail_seconds: float = 0.0
    """What that took, of the `seconds`."""
