"""Two models measured on the same rows: whether one is as good as the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from reuselib.derivation.session import Session
    from reuselib.measure.bootstrap import Interval
    from reuselib.task import Processor

SLIGHT = 0.02
"""Of a metric: a difference that does not matter, however sure it is that there is one."""
_ROWS = 2
"""How many rows two machines may answer otherwise, because a tie is broken by the last bits."""


@dataclass(frozen=True)
class Paired:
    """What was measured of two models, by metric."""

    recorded: Mapping[str, float]
    """Of the model in the folder."""
    again: Mapping[str, float]
    """Of the one that was made again."""
    changes: Mapping[str, Interval]
    """95 % intervals of the difference, over other draws of the rows (paired bootstrap)."""
    num_rows: int

    @property
    def both(self) -> dict[str, tuple[float, float]]:
        """Recorded and again, of metrics that both have."""
        return {
            name: (self.recorded[name], self.again[name])
            for name in self.recorded
            if name in self.again
        }

    def worse(self) -> Iterator[str]:
        """Metrics in which the two differ by more than chance and more than a little."""
        for name, (one, other) in self.both.items():
            low, high = self.changes.get(name, (other - one, other - one))
            # written so that a value that is no number is never as good as another
            if not (low <= 0 <= high or abs(other - one) <= SLIGHT * abs(one)):
                yield name

    def untrue(self, stated: Mapping[str, float]) -> Iterator[str]:
        """Metrics of which a record states another number than the folder's own model reaches."""
        for name, value in stated.items():
            here = self.recorded.get(name)
            if here is not None:
                limit = max(SLIGHT * abs(here), _ROWS / self.num_rows)
                if not abs(value - here) <= limit:
                    yield name


def measure_both(
    folder: Path, again: tuple[nn.Module, Processor], session: Session
) -> Paired | None:
    """Measure a folder's model and one in memory on the test rows; None without rows.

    Raises:
        ReuseError: the folder's model cannot be opened.
    """
    from reuselib.measure.bootstrap import changes, resampled
    from reuselib.model.opening import open_network
    from reuselib.training.evaluate import observe

    if session.rows is None:
        return None
    task, rows = session.task, session.rows.test
    opened = open_network(folder, task, session.store)
    seen = [
        observe(module, task.encode(rows, processor), task, processor)
        for module, processor in ((opened.module, opened.processor), again)
    ]
    one, other = (task.metrics(each) for each in seen)
    apart = changes(resampled(task, seen[0]), resampled(task, seen[1]))
    return Paired(one, other, apart, len(next(iter(seen[0].values()))))
