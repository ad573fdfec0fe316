from __future__ import annotations

from dataclasses import replace

import pytest

from reuselib.errors import TrainingError
from reuselib.training.checks import check, num_epochs, num_micro_rows, num_steps
from reuselib.training.plan import FitPlan, Optimizer


def test_steps_and_epochs_follow_from_rows() -> None:
    assert num_steps(FitPlan(epochs=3, batch_size=8), 17) == 9
    assert num_epochs(FitPlan(epochs=3, batch_size=8), 17) == 3
    assert num_epochs(FitPlan(epochs=3, batch_size=8, max_steps=4), 17) == 2


def test_a_batch_is_divided_evenly_or_refused() -> None:
    plan = FitPlan(batch_size=24, gradient_accumulation_steps=2)

    assert num_micro_rows(plan) == 12
    with pytest.raises(TrainingError, match="multiple of 5"):
        num_micro_rows(replace(plan, gradient_accumulation_steps=5))


def test_a_norm_that_would_stop_all_learning_is_refused() -> None:
    with pytest.raises(TrainingError, match="max_grad_norm is 0"):
        check(FitPlan(optimizer=Optimizer(max_grad_norm=0.0)), [{}], None)
