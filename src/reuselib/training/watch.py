"""Looks at every loss and gradient norm, and stops the run at the first that is not a finite number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

STEPS_BETWEEN_LOOKS = 16
"""On a device that works ahead of Python, looking means waiting, so several steps are looked at together."""


@dataclass(frozen=True)
class Seen:
    """What is to be looked at of one optimizer step."""

    step: int
    epoch: int
    what: str
    value: Tensor
    rows: Sequence[int]


@dataclass
class Watch:
    """Collects figures and looks at them: at once on a CPU, now and then elsewhere, always before the end."""

    waiting: list[Seen] = field(default_factory=list)

    def see(self, seen: Seen) -> None:
        """Take note of a figure; look at it as soon as that is free."""
        self.waiting.append(seen)
        if seen.value.device.type == "cpu" or len(self.waiting) >= STEPS_BETWEEN_LOOKS:
            self.look()

    def look(self) -> None:
        """Look at everything taken note of.

        Raises:
            TrainingError: one of the figures is not finite.
        """
        waiting, self.waiting = self.waiting, []
        for seen in waiting:
            value = seen.value.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"{seen.what} is {value} at optimizer step {seen.step} (epoch {seen.epoch}),"
                    f" in the batch of training rows {_shortened(seen.rows)}",
                    expected="a finite number",
                    fix="lower `learning_rate`, look at these rows, or use `precision: fp32`",
                )


def _shortened(rows: Sequence[int]) -> str:
    shown = ", ".join(str(row) for row in rows[:32])
    return f"[{shown}]" if len(rows) <= 32 else f"[{shown}, ... {len(rows) - 32} more]"
