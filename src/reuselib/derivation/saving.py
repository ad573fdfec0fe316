"""Where and how the trainings of one step are kept while they run, as a run was told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reuselib.errors import TrainingError
from reuselib.lineage.checkpoints import Checkpoints, differences, read
from reuselib.progress import Progress, Report

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.derivation.derive import Runtime
    from reuselib.training.checkpointing import Saver


@dataclass
class Saving:
    """What a run was told about checkpoints."""

    resume: Literal["auto", "no"] | Path = "auto"
    """A checkpoint that was asked for by name is used once, by the first training that it can be of."""
    seconds: float | None = 300.0
    keep: int = 2

    @classmethod
    def of(cls, runtime: Runtime) -> Saving:
        """As a runtime has it.

        Raises:
            TrainingError: it makes no sense.
        """
        seconds, keep = runtime.checkpoint_seconds, runtime.keep_checkpoints
        if seconds is not None and not 0 <= seconds < math.inf:
            raise TrainingError(
                f"the time between two checkpoints is {seconds} s",
                expected="a finite time, or None for checkpoints only when a run is interrupted",
            )
        if keep < 1:
            raise TrainingError(f"keep_checkpoints is {keep}", expected="at least 1")
        return cls(runtime.resume, runtime.checkpoint_seconds, runtime.keep_checkpoints)

    def start(self, inputs: Mapping[str, Json], training: int) -> Literal["auto", "no"] | Path:
        """Where a training begins."""
        asked = self.resume
        if not isinstance(asked, Path):
            return asked
        title, _ = read(asked)
        if title.training > training and not differences(title.inputs, inputs):
            return "auto"  # it is of a later training of the same step
        self.resume = "auto"
        return asked

    def require_used(self) -> None:
        """At the end of a run; raises `TrainingError` if no training was there to go on from the checkpoint."""
        if isinstance(self.resume, Path):
            raise TrainingError(
                f"the checkpoint at {self.resume} was not used: no step was trained",
                expected="a checkpoint of a step whose child is not finished",
                fix="leave out --resume; all children of the recipe are in the store",
            )


@dataclass
class StepSaving:
    """The same for one step, which counts its trainings."""

    saving: Saving
    place: Checkpoints
    inputs: Mapping[str, Json]
    """What its child is made of."""
    num_trainings: int = field(default=0, init=False)

    @contextmanager
    def saver(self, report: Report | None) -> Iterator[Saver]:
        """For the next training; within, Ctrl-C and SIGTERM let the step be finished."""
        from reuselib.training.checkpointing import Saver
        from reuselib.training.interruption import heeded

        def tell(remark: str) -> None:
            if report is not None:
                report(Progress("training", 0, 0, remark=remark))

        training = self.num_trainings
        self.num_trainings += 1
        with heeded() as interruption:
            yield Saver(
                place=self.place,
                training=training,
                inputs=self.inputs,
                resume=self.saving.start(self.inputs, training),
                seconds=self.saving.seconds,
                keep=self.saving.keep,
                interruption=interruption,
                tell=tell,
            )
