"""How far a run has come, as plain values: whoever works reports, whoever called decides what to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Progress:
    """One report."""

    phase: str
    """What is being done, such as `lora: training`."""
    done: int
    total: int
    """Units of work in this phase; 0 if unknown."""
    detail: str = ""
    """A figure worth seeing, such as the current loss."""
    remark: str = ""
    """Something that happened and is worth a line of its own, such as where a training goes on."""


Report: TypeAlias = Callable[[Progress], None]
