from __future__ import annotations

import dataclasses

import pytest

from reuselib.progress import Progress


def test_a_report_is_a_value_that_cannot_be_changed():
    report = Progress("lora: training", 3, 10)

    assert report == Progress("lora: training", 3, 10, detail="")
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.done = 4  # type: ignore[misc]


def test_a_report_can_be_passed_on_under_another_name():
    report = dataclasses.replace(
        Progress("training", 3, 10, "loss 0.5"), phase="[1/2] lora: training"
    )

    assert report == Progress("[1/2] lora: training", 3, 10, "loss 0.5")
