"""Which part of a training to do again, and what it can be begun with."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reuselib.errors import TrainingError

if TYPE_CHECKING:
    from reuselib.lineage.store import Store
    from reuselib.lineage.trail import Entry, Trail


@dataclass(frozen=True)
class Window:
    """A part of a training: evidence for the rest of it, at a part of its price.

    It goes on to the next step that has an entry in the trail, so it may be longer than asked for. The first window
    needs the parent; the others need states that were kept, see `Runtime.keep_states`.
    """

    steps: int
    """At least so many optimizer steps."""
    which: Literal["first", "last", "random"] = "first"
    seed: int = 0
    """Decides which window is the random one."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TrainingError(
                f"a window of {self.steps} steps shows nothing", expected="at least 1"
            )
        if self.which not in ("first", "last", "random"):
            raise TrainingError(
                f"there is no window '{self.which}'", expected="first, last or random"
            )


@dataclass(frozen=True)
class Chosen:
    """A window that can be done again."""

    start: Entry | None
    """Whose kept state to begin with; None for the parent."""
    stop: int
    asked: int
    """How many steps were asked for; it may be more of them."""


def choose(window: Window, trail: Trail, store: Store, derivation_id: str) -> Chosen | str:
    """The part of a training that a window means, or why it cannot be done again."""
    if window.which == "first":
        return Chosen(None, _entry_from(trail, window.steps), window.steps)
    if not trail.kept:
        return (
            "no states of this training were kept, so only its first steps can be done again; "
            "run it with --keep-states to check others"
        )
    present = [entry for entry in trail.kept if _folder(store, derivation_id, entry).is_dir()]
    if not present:
        return f"the {len(trail.kept)} states that were kept of this training are not in the store at hand"
    if window.which == "last":
        early = [entry for entry in present if entry.step <= trail.num_steps - window.steps]
        return Chosen(early[-1] if early else present[0], trail.num_steps, window.steps)
    start = random.Random(window.seed).choice(present)
    return Chosen(start, _entry_from(trail, start.step + window.steps), window.steps)


def _entry_from(trail: Trail, step: int) -> int:
    """The first step at or after `step` that has an entry, else the last of all."""
    return next((each for each in trail.steps if each >= step), trail.num_steps)


def _folder(store: Store, derivation_id: str, entry: Entry) -> Path:
    return store.states.place(derivation_id, str(entry.step))
