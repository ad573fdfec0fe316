from __future__ import annotations

import pytest

from reuselib.derivation.rehearsal import estimate, num_optimizer_steps
from reuselib.training.plan import FitPlan


@pytest.mark.parametrize(
    ("plan", "num_rows", "expected"),
    [
        (FitPlan(epochs=2, batch_size=8), 16, 4),
        (FitPlan(epochs=2, batch_size=8), 17, 6),
        (FitPlan(epochs=2, batch_size=8, max_steps=3), 17, 3),
        (FitPlan(epochs=1, batch_size=8, max_steps=30), 17, 3),
    ],
)
def test_optimizer_steps_are_counted_with_the_short_last_batch(plan, num_rows, expected):
    assert num_optimizer_steps(plan, num_rows) == expected


def test_the_first_step_is_not_taken_for_typical():
    assert estimate([10.0, 11.0, 13.0], num_steps=100, spent=20.0) == 150.0


@pytest.mark.parametrize("times", [[], [1.0]])
def test_what_cannot_be_timed_took_what_was_spent(times):
    assert estimate(times, num_steps=len(times), spent=2.5) == 2.5
