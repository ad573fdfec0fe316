"""Parts of the test rows that a model may be worse on than on the whole: short and long rows, and values of columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from reuselib.data.rows import plain

if TYPE_CHECKING:
    from reuselib.task import Rows, Task

MIN_VALUES, MAX_VALUES = 2, 20
"""A column with so many different values divides the rows into parts."""
TERCILES = ("short", "medium", "long")

Slices = dict[str, list[int]]
"""Row numbers by name of the part, such as `length=long` or `source=web`."""


def slices(
    rows: Rows, task: Task, columns: Collection[str], lengths: Sequence[int] | None
) -> Slices:
    """Parts of the rows.

    Args:
        rows: raw.
        task: columns that it reads are left out.
        columns: of the rows.
        lengths: what each row costs; None if all cost the same.
    """
    found = _by_length(lengths) if lengths is not None else {}
    free = sorted(set(columns) - _used(task))
    return found | _by_value(rows, free) if free else found


def _by_length(lengths: Sequence[int]) -> Slices:
    """Thirds of the rows; rows of one length stay together, so a third may be missing."""
    ordered = sorted(lengths)
    edges = [ordered[len(ordered) * third // 3] for third in (1, 2)]
    found: Slices = {}
    for row, length in enumerate(lengths):
        third = TERCILES[sum(length >= edge for edge in edges)]
        found.setdefault(f"length={third}", []).append(row)
    return found if len(found) > 1 else {}


def _by_value(rows: Rows, columns: Sequence[str]) -> Slices:
    values: dict[str, dict[str, list[int]] | None] = {column: {} for column in columns}
    for number, row in enumerate(plain(rows)):
        for column, parts in values.items():
            if parts is None:
                continue
            value = row[column]
            if value is not None and not isinstance(value, str | int | bool):
                values[column] = None  # numbers of many digits, images, lists
                continue
            parts.setdefault(str(value), []).append(number)
            if len(parts) > MAX_VALUES:
                values[column] = None
    return {
        f"{column}={value}": parts[value]
        for column, parts in values.items()
        if parts is not None and len(parts) >= MIN_VALUES
        for value in sorted(parts)
    }


def _used(task: Task) -> set[str]:
    """Every text among the task's fields: the columns that it reads are among them."""
    used: set[str] = set()
    for each in fields(task) if is_dataclass(task) else ():
        value = getattr(task, each.name)
        values = value if isinstance(value, tuple) else (value,)
        used |= {item for item in values if isinstance(item, str)}
    return used
