"""What a plan must satisfy before the first step, and what follows from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reuselib.errors import DataError, TrainingError
from reuselib.training.plan import FitPlan
from reuselib.training.schedule import num_warmup_steps

if TYPE_CHECKING:
    from reuselib.task import Examples


def check(plan: FitPlan, train: Examples, validation: Examples | None) -> None:
    """Check a plan against its rows.

    Raises:
        DataError: there are no rows.
        TrainingError: a value is out of range, or an option would have no effect.
    """
    if len(train) == 0:
        raise DataError("there are no rows to train on", expected="at least one training row")
    counts = {
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "max_steps": 1 if plan.max_steps is None else plan.max_steps,
    }
    for name, value in counts.items():
        if value < 1:
            raise TrainingError(f"{name} is {value}", expected="at least 1")
    norm = plan.optimizer.max_grad_norm
    positive = {"learning_rate": plan.learning_rate, "max_grad_norm": 1.0 if norm is None else norm}
    for name, value in positive.items():
        if not (value > 0 and math.isfinite(value)):
            raise TrainingError(f"{name} is {value}", expected="a finite number above 0")
    num_warmup_steps(plan.schedule, num_steps(plan, len(train)))
    if plan.early_stopping is not None and not validation:
        raise TrainingError(
            "early_stopping needs validation rows, and there are none",
            fix="hold some out, or leave `early_stopping` away",
        )


def num_steps(plan: FitPlan, num_rows: int) -> int:
    """Optimizer steps of the whole run."""
    return plan.max_steps or plan.epochs * math.ceil(num_rows / plan.batch_size)


def num_epochs(plan: FitPlan, num_rows: int) -> int:
    """Epochs of the whole run, the last perhaps cut short: `max_steps` decides when it is given."""
    return math.ceil(num_steps(plan, num_rows) / math.ceil(num_rows / plan.batch_size))


def num_micro_rows(plan: FitPlan) -> int:
    """Rows of a micro-batch over all processes, which need not get the same number of them.

    Raises:
        TrainingError: the batch cannot be divided evenly.
    """
    pieces = plan.gradient_accumulation_steps
    if plan.batch_size % pieces:
        raise TrainingError(
            f"batch_size {plan.batch_size} cannot be divided into {pieces} micro-batches",
            expected=f"a multiple of {pieces}",
            fix="change `batch_size` or `gradient_accumulation_steps`",
        )
    return plan.batch_size // pieces
