"""A recorded training, or a part of it, done again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.lineage.trail import Trail
    from reuselib.training.state import State


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Which training to do again, and which part of it."""

    trail: Trail
    """As recorded: looked at after the same steps."""
    start: State | None = None
    """Where to begin; None for the beginning."""
    stop: int | None = None
    """The step to end after, which leaves the training by raising `Stopped`; None to go on to the end."""


class Stopped(Exception):
    """The part that was to be done again is done: there is nothing to hand to whoever asked for a whole training."""

    def __init__(self, trail: Trail, rows: frozenset[int]) -> None:
        super().__init__("the training was only wanted up to here")
        self.trail = trail
        self.rows = rows
        """Numbers of the rows that were seen."""
