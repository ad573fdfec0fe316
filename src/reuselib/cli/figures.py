"""Numbers for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.model.figures import Figures

NONE = "-"


def count(value: float | None) -> str:
    """A number of things: `22.7 M`."""
    if value is None:
        return NONE
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f}"


def size(num_bytes: float | None) -> str:
    """A number of bytes: `90.9 MB`."""
    if num_bytes is None:
        return NONE
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def number(value: float | None, *, digits: int = 3) -> str:
    """A figure with that many digits behind the point."""
    return NONE if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """A time span: `1 min 20 s`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def change(before: float | None, after: float | None) -> str:
    """A metric before and after: `0.512 -> 0.883`."""
    return NONE if after is None else f"{number(before)} -> {number(after)}"


def within(value: object, interval: object) -> str:
    """A figure with its interval: `0.883 [0.861, 0.905]`."""
    if not isinstance(value, int | float):
        return NONE
    if not isinstance(interval, list):
        return number(value)
    low, high = interval
    return f"{number(value)} [{number(low)}, {number(high)}]"


def milliseconds(value: float | str | None) -> str:
    """A time in ms with three digits, or the word in its place."""
    if value is None or isinstance(value, str):
        return value or NONE
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def factor(value: object) -> str:
    """How many times as fast: `2.41x`; or the word in its place."""
    if isinstance(value, int | float):
        return f"{value:.2f}x"
    return value if isinstance(value, str) else NONE


def told(figures: Figures) -> Iterator[str]:
    """A child's figures in a few lines; nothing for a base."""
    cost, drift, origin = figures.cost, figures.drift, figures.origin
    if figures.after:
        before, after = (each.get(figures.metric) for each in (figures.before, figures.after))
        yield f"{figures.metric} {change(before, after)} in the last step"
    if cost:
        time = cost.get("latency_p50")
        time = f"{milliseconds(time)} ms a row" if isinstance(time, float) else "no stable time"
        flops = (
            f", {count(_plain(cost.get('flops')))} FLOPs a row, {time}" if "flops" in cost else ""
        )
        parameters, bytes_ = (
            count(_plain(cost.get("num_parameters"))),
            size(_plain(cost.get("num_bytes"))),
        )
        yield f"{parameters} parameters, {bytes_}{flops}"
    if "agreement" in drift:
        yield f"same answer as the model before on {number(_plain(drift['agreement']))} of the test rows"
    speedup = origin.get("speedup")
    speedup = speedup.get("speedup") if isinstance(speedup, dict) else None
    if isinstance(speedup, float):
        yield f"{factor(speedup)} as fast for one row as {origin['name']}"


def _plain(value: object) -> float | None:
    return value if isinstance(value, int | float) else None
