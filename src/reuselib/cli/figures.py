"""Numbers for people."""

from __future__ import annotations

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
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
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
