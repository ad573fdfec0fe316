"""On how many rows to calibrate: plain values, shared by every adapter that looks at data without learning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Training rows that are shown to the network to see what its layers do."""

    num_rows: int = 128
    """The first so many rows of the training split."""
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("num_rows", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
