"""Which part of a split is meant: `train`, `train[:2000]`, `train[10%:20%]`, `./more.csv[:50]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reuselib.errors import DataError

_BOUND = r"(-?\d+%?)?"
_PART = re.compile(rf"(?P<name>[^\[\]]+)(?:\[{_BOUND}:{_BOUND}\])?")


@dataclass(frozen=True)
class Part:
    """A split by name, or a file, and perhaps a slice of its rows."""

    name: str
    start: str = ""
    stop: str = ""
    """As in a Python slice; with `%`, a share of the rows. Empty: the end on that side."""

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read a part as recipes write it.

        Raises:
            DataError: it is not written like one.
        """
        match = _PART.fullmatch(text)
        if match is None:
            raise DataError(
                f"'{text}' does not name a split",
                expected="a name and perhaps a slice: train, train[:2000], train[10%:20%]",
                fix="write one name; a slice has exactly one colon and whole numbers",
            )
        name, start, stop = match.groups()
        return cls(name, start or "", stop or "")

    def __str__(self) -> str:
        return f"{self.name}[{self.start}:{self.stop}]" if self.start or self.stop else self.name

    def indices(self, num_rows: int) -> range:
        """The rows that are meant.

        Raises:
            DataError: the slice reaches beyond the rows there are, or is empty.
        """
        start = _bound(self.start or "0", num_rows)
        stop = _bound(self.stop, num_rows) if self.stop else num_rows
        if not 0 <= start < stop <= num_rows:
            # A slice cut short in silence would give a run on fewer rows than its recipe says.
            raise DataError(
                f"'{self}' asks for rows {start} to {stop}, but '{self.name}' has {num_rows} rows",
                expected=f"a part of rows 0 to {num_rows} that is not empty",
                fix=f"change the slice, or write '{self.name}' for all rows",
            )
        return range(start, stop)


def _bound(text: str, num_rows: int) -> int:
    """A row number; a share is rounded to the nearest row, so that adjoining shares adjoin."""
    share = text.endswith("%")
    number = int(text.rstrip("%"))
    # floor(x + 1/2) in whole numbers: no rounding of floats, no rounding to even.
    place = (2 * number * num_rows + 100) // 200 if share else number
    return place + num_rows if number < 0 else place
