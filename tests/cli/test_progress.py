from __future__ import annotations

from contextlib import suppress

import pytest

from reuselib.cli.progress import shown
from reuselib.progress import Progress


def test_nothing_is_left_turning_over_a_failure(capsys):
    with pytest.raises(ValueError, match="no"), shown():
        raise ValueError("no")

    assert "preparing" not in capsys.readouterr().err


def test_the_phase_in_which_it_failed_stays(capsys):
    with suppress(ValueError), shown() as report:
        report(Progress("training", 3, 10))
        raise ValueError("no")

    assert "training" in capsys.readouterr().err
