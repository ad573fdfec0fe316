"""Keeping a store small: what nobody needs goes, what several hold is kept once, and a limit is kept if it can be.

First everything is decided on a survey, so that it can be told without being done; then it is done one thing at a
time. Each thing goes by one rename, after a last look at whether somebody uses it by now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.lineage.choosing import DAY, Choice, Item
from reuselib.lineage.disk import writing
from reuselib.lineage.holdings import survey
from reuselib.lineage.locks import locked
from reuselib.lineage.removal import Remover
from reuselib.lineage.scratch import sweep
from reuselib.lineage.store import Store

if TYPE_CHECKING:
    from reuselib.adapter import Json


@dataclass(frozen=True)
class Collected:
    """What came of it."""

    items: tuple[Item, ...]
    num_bytes_before: int
    num_bytes: int
    limit_bytes: int | None
    dry_run: bool

    @property
    def fits(self) -> bool:
        """Whether the limit is kept; true without one."""
        return self.limit_bytes is None or self.num_bytes <= self.limit_bytes

    def to_json(self) -> dict[str, Json]:
        """As printed with `--json`."""
        return {
            "bytes_before": self.num_bytes_before,
            "bytes": self.num_bytes,
            "limit": self.limit_bytes,
            "fits": self.fits,
            "dry_run": self.dry_run,
            "items": [each.to_json() for each in self.items],
        }


def collect(
    store: Store,
    *,
    limit_bytes: int | None = None,
    keep: Sequence[str] = (),
    idle_seconds: float = DAY,
    dry_run: bool = False,
) -> Collected:
    """Make a store smaller without taking away what anything that stays was made from.

    Without a limit nothing is lost that saves work: checkpoints of finished children and tensors that nobody names
    go, and children that share tensors are packed. With one, more goes until the store fits: lessons, activations and
    kept states, then children, interrupted trainings and kept bases; of these what was not used for the longest time
    comes first, and only what no child that stays was made from. What a running process claims or needs stays, and so
    does what was used within `idle_seconds`.

    Args:
        store: the store.
        limit_bytes: that all models, bases and caches may take together.
        keep: children that stay, by id or by at least 8 first digits.
        idle_seconds: how long something must have been unused.
        dry_run: only say what would be done.

    Raises:
        StoreError: a name in `keep` fits none or several, the list of a packed child is damaged, or the store cannot
            be written.
    """
    wanted = frozenset(store.whole_name(name) for name in keep)

    def decided() -> Choice:
        choice = Choice(survey(store), store.claims.held(), wanted, idle_seconds)
        choice.make(limit_bytes)
        return choice

    if dry_run:
        choice = decided()
        before, after = choice.found.num_bytes, choice.num_bytes
        return Collected(choice.items(), before, after, limit_bytes, dry_run=True)
    with _alone(store):
        remover = Remover(store, store.uses.noted())
        choice = decided()
        items = choice.items()
        otherwise = _carry_out(remover, choice)
        done = tuple(otherwise.get((each.what, each.name), each) for each in items)
        before, after = choice.found.num_bytes, survey(store).num_bytes
        return Collected(done, before, after, limit_bytes, dry_run=False)


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """No two at once: one would remove shared tensors that the other is about to name."""
    with writing(store.path):
        store.uses.folder.mkdir(parents=True, exist_ok=True)
        with locked(store.uses.folder / "collecting"):
            sweep(store.tmp)
            yield


def _carry_out(remover: Remover, choice: Choice) -> dict[tuple[str, str], Item]:
    """Do it; return what came out otherwise than decided, by kind and name."""
    otherwise: dict[tuple[str, str], Item] = {}

    def note(what: str, name: str, why: str) -> None:
        if why:
            otherwise[what, name] = Item(what, name, "kept", 0, why)

    for each in choice.found.caches:
        if (each.room, each.name) in choice.removed:
            note(each.room, each.name, remover.cache(each.room, each.name))
    for each in choice.found.holdings:
        if (each.what, each.name) in choice.removed:
            base = each.is_root
            why = remover.base(each.name) if base else remover.child(each.name, each.digest)
            note(each.what, each.name, why)
    for name in sorted(choice.packed):
        note("child", name, remover.pack(name))
    remover.stray()
    return otherwise
