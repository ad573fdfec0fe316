from __future__ import annotations

import pytest

from reuselib.derivation.rehearsal import estimate


def test_the_first_step_is_not_taken_for_typical():
    assert estimate([10.0, 11.0, 13.0], num_steps=100, spent=20.0) == 150.0


@pytest.mark.parametrize("times", [[], [1.0]])
def test_what_cannot_be_timed_took_what_was_spent(times):
    assert estimate(times, num_steps=len(times), spent=2.5) == 2.5
