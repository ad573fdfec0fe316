"""How the learning rate moves over the optimizer steps."""

from __future__ import annotations

import math

from reuselib.errors import TrainingError
from reuselib.training.plan import Schedule


def num_warmup_steps(schedule: Schedule, num_steps: int) -> int:
    """Steps of warm-up; a value below 1 is a share of all steps, rounded up.

    Raises:
        TrainingError: the value is negative, broken, or above all steps.
    """
    value = schedule.warmup_steps
    if value < 0 or not math.isfinite(value) or (value >= 1 and value != int(value)):
        raise TrainingError(
            f"warmup_steps is {value}",
            expected="a whole number of steps, or a share of them in [0, 1)",
        )
    steps = math.ceil(value * num_steps) if value < 1 else int(value)
    if steps > num_steps:
        raise TrainingError(
            f"warmup_steps is {steps}, but the run has {num_steps} steps: full speed is never reached",
            fix="lower `warmup_steps`, or train for longer",
        )
    return steps


def factor(schedule: Schedule, step: int, num_steps: int) -> float:
    """What the learning rate is multiplied by in optimizer step `step` (from 0) of `num_steps`."""
    warmup = num_warmup_steps(schedule, num_steps)
    if step < warmup:
        return step / warmup
    if schedule.lr_scheduler_type == "constant":
        return 1.0
    progress = (step - warmup) / max(1, num_steps - warmup)
    if schedule.lr_scheduler_type == "linear":
        return max(0.0, 1.0 - progress)
    if schedule.lr_scheduler_type == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    raise TrainingError(
        f"unknown lr_scheduler_type {schedule.lr_scheduler_type!r}",
        expected="linear, cosine or constant",
    )
