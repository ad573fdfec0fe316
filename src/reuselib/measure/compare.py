"""Two models beside each other, measured on the same rows: the engine behind every step and `reuselib compare`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from reuselib.measure.bootstrap import changes
from reuselib.measure.drift import drift
from reuselib.measure.latency import UNSTABLE, faster_by

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.measure.latency import Timing
    from reuselib.measure.probe import Measured
    from reuselib.measure.slices import Slices


@dataclass(frozen=True)
class Side:
    """One model of a comparison."""

    measured: Measured
    timings: Mapping[int, Timing] = field(default_factory=dict)
    """By batch size."""


@dataclass(frozen=True)
class Comparison:
    """The second model against the first."""

    drift: dict[str, Json]
    """See `drift.drift`."""
    changes: dict[str, Json]
    """Interval of the change of each metric: `[low, high]`."""
    speedup: dict[str, Json]
    """How many times faster: `speedup` for one row, `speedup_batch32` for 32; or `unstable`."""


def compare(first: Side, second: Side, parts: Slices, *, alternated: bool = True) -> Comparison:
    """Put two models beside each other.

    Args:
        first: the reference.
        second: the other one.
        parts: slices of the rows.
        alternated: whether their times were taken in turns; if not, only times that are stable are compared.
    """
    one, other = first.measured, second.measured
    return Comparison(
        drift=cast("dict[str, Json]", recordable(drift(one, other, parts))),
        changes={name: list(each) for name, each in changes(one.draws, other.draws).items()},
        speedup={
            "speedup" if size == 1 else f"speedup_batch{size}": _speedup(
                first.timings[size], timing, alternated
            )
            for size, timing in second.timings.items()
            if size in first.timings
        },
    )


def _speedup(one: Timing, other: Timing, alternated: bool) -> float | str:
    if alternated:
        return faster_by(one, other)
    before, after = one.percentile(0.5), other.percentile(0.5)
    if isinstance(before, str) or isinstance(after, str):
        return UNSTABLE
    return before / after


def recordable(value: object) -> Json:
    """The value without the figures that are not finite, which no record can hold."""
    if isinstance(value, Mapping):
        plain = {str(key): recordable(item) for key, item in value.items()}
        return {key: item for key, item in plain.items() if item is not None}
    if isinstance(value, list | tuple):
        return [recordable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return cast("Json", value)
