"""Deciding what goes from a store, and telling why the rest stays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from reuselib.lineage.holdings import CACHES, Cache, Holding, Survey

if TYPE_CHECKING:
    from reuselib.adapter import Json

DAY = 86400.0
WORTH_PACKING = 0.05
"""Share of a child's bytes that others have as well, from which on it is packed: unpacking takes time."""

Action = Literal["removed", "packed", "kept"]


@dataclass(frozen=True)
class Item:
    """One thing in the store, and what becomes of it."""

    what: str
    """`child`, `base`, `checkpoints`, `lessons`, `activations`, `states`, or `tensors` that no child has."""
    name: str
    action: Action
    num_bytes: int
    """Room that it takes; of what is packed: room that this gains."""
    why: str

    def to_json(self) -> dict[str, Json]:
        """As printed with `--json`."""
        return dict(asdict(self))


@dataclass
class Choice:
    """What is to be done, decided on a survey; see `collection.collect`."""

    found: Survey
    claims: Mapping[str, frozenset[str]]
    """What running processes make, and what each of them needs."""
    wanted: frozenset[str]
    """Ids of children that stay."""
    idle_seconds: float
    removed: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    """Why, by kind and name."""
    packed: dict[str, int] = field(default_factory=dict[str, int])
    """What this gains, by the name of the child."""

    def __post_init__(self) -> None:
        """Count what is there."""
        self.now = time.time()
        self.in_use = frozenset(self.claims).union(*self.claims.values())
        self.num_bytes = self.found.num_bytes
        """Of the store, once all is done."""
        self._left = {each.name: each for each in self.found.holdings}
        self._needed = Counter(name for each in self.found.holdings for name in each.needs)
        self._held = _tensors(each for each in self.found.holdings if each.packed_bytes)
        """How many packed children hold a tensor."""

    def make(self, limit_bytes: int | None) -> None:
        """Decide."""
        finished = self._left.keys() | self.found.unreadable.keys()
        self.num_bytes -= self._stray_bytes
        for each in self.found.caches:
            if each.room == "checkpoints" and each.name in finished - self.claims.keys():
                self._remove_cache(each, "the child is finished")
        self._pack()
        if limit_bytes is not None:
            self._make_room(limit_bytes)
            sharing = (
                self._sharing()
            )  # what they shared with may be gone, and then nothing is gained
            self.packed = {name: gain for name, gain in self.packed.items() if name in sharing}

    def items(self) -> tuple[Item, ...]:
        """On everything in the store."""
        found = [*map(self._told, self.found.holdings), *map(self._told_cache, self.found.caches)]
        for name, why in self.found.unreadable.items():
            found.append(Item("child", name, "kept", 0, f"its record cannot be read: {why}"))
        if self.found.stray:
            found.append(Item("tensors", "", "removed", self._stray_bytes, "no child has them"))
        return tuple(found)

    # telling

    def _told(self, each: Holding) -> Item:
        if (why := self.removed.get((each.what, each.name))) is not None:
            return Item(each.what, each.name, "removed", each.num_bytes, why)
        if each.name in self.packed:
            gain, why = self.packed[each.name], "others hold some of its tensors"
            return Item(each.what, each.name, "packed", gain, why)
        why = self._why_kept(each) or "there is room"
        return Item(each.what, each.name, "kept", each.num_bytes, why)

    def _told_cache(self, each: Cache) -> Item:
        if (why := self.removed.get((each.room, each.name))) is not None:
            return Item(each.room, each.name, "removed", each.num_bytes, why)
        stays = "the training can go on from it" if each.room == "checkpoints" else "there is room"
        return Item(each.room, each.name, "kept", each.num_bytes, self._why_cache(each) or stays)

    def _why_kept(self, each: Holding) -> str:
        """The reason that is beyond any limit; empty if there is none."""
        if each.name in self.wanted:
            return "you said to keep it"
        if self._is_in_use(each):
            return "a running process needs it"
        if self._is_needed(each):
            child = next(other for other in self._left.values() if each.is_needed_by(other))
            return f"{child.name[:12]} was made from it"
        return self._why_recent(each.used)

    def _why_cache(self, each: Cache) -> str:
        """As `_why_kept`. Whose lessons and activations a process reads is not known, so all stay."""
        of_child = each.room in ("checkpoints", "states")
        if each.name in self.claims if of_child else self.claims:
            return "a running process may need it"
        return self._why_recent(each.used)

    def _why_recent(self, used: float) -> str:
        if self.now - used >= self.idle_seconds:
            return ""
        minutes = max(0, round((self.now - used) / 60))
        told = f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
        return f"it was used {told} ago"

    def _is_in_use(self, each: Holding) -> bool:
        return each.name in self.in_use or each.digest in self.in_use

    def _is_needed(self, each: Holding) -> bool:
        own = sum(name in each.needs for name in {each.name, each.digest})
        return sum(self._needed[name] for name in {each.name, each.digest}) > own

    # packing

    def _pack(self) -> None:
        for name in sorted(self._sharing()):
            each = self._left[name]
            if each.packed_bytes:  # as a plain folder as well, which was unpacked from it
                gain = each.plain_bytes
            else:
                added = sum(size for sha, size in each.tensors.items() if not self._held[sha])
                gain = each.large_bytes - added
                self._held.update(each.tensors.keys())
            self.packed[name] = gain
            self.num_bytes -= gain

    def _sharing(self) -> set[str]:
        """Children in plain folders that nobody uses, if others hold enough of their tensors as well."""
        plain = [each for each in self._left.values() if each.plain_bytes and not each.is_root]
        idle = [
            each for each in plain if not self._is_in_use(each) and not self._why_recent(each.used)
        ]
        forms = {each.name: each for each in self._left.values() if each.packed_bytes}
        count = _tensors((forms | {each.name: each for each in idle}).values())
        return {each.name for each in idle if _is_worth_packing(each, count)}

    # making room

    def _make_room(self, limit_bytes: int) -> None:
        for room in CACHES[1:]:
            for each in sorted(self.found.caches, key=lambda each: each.used):
                too_much = self.num_bytes > limit_bytes
                if too_much and each.room == room and not self._why_cache(each):
                    self._remove_cache(each, "to make room; it can be made again")
        while self.num_bytes > limit_bytes:
            leaf = min(self._leaves(), key=lambda each: each.used, default=None)
            if leaf is None:
                break
            if isinstance(leaf, Cache):
                self._remove_cache(leaf, "to make room; the training then begins anew")
            else:
                self._remove(leaf)

    def _leaves(self) -> Iterator[Holding | Cache]:
        """What nothing that stays was made from, and nobody uses."""
        for each in self._left.values():
            if not self._is_needed(each) and not self._why_kept(each):
                yield each
        for each in self.found.caches:
            is_there = (each.room, each.name) not in self.removed
            if is_there and each.room == "checkpoints" and not self._why_cache(each):
                yield each

    def _remove_cache(self, each: Cache, why: str) -> None:
        self.removed[each.room, each.name] = why
        self.num_bytes -= each.num_bytes

    def _remove(self, each: Holding) -> None:
        days = (self.now - each.used) / DAY
        why = f"to make room; not used for {days:.1f} days, and nothing was made from it"
        self.removed[each.what, each.name] = why
        del self._left[each.name]
        self._needed.subtract(each.needs)
        to_be_packed = self.packed.pop(each.name, None) is not None
        if to_be_packed or each.packed_bytes:
            self._held.subtract(each.tensors.keys())
            self.num_bytes -= sum(size for sha, size in each.tensors.items() if not self._held[sha])
        if to_be_packed:
            self.num_bytes -= each.packed_bytes or each.plain_bytes - each.large_bytes
        else:
            self.num_bytes -= each.num_bytes

    @property
    def _stray_bytes(self) -> int:
        return sum(self.found.stray.values())


def _tensors(holdings: Iterable[Holding]) -> Counter[str]:
    """How many of them hold each tensor."""
    return Counter(sha for each in holdings for sha in each.tensors)


def _is_worth_packing(each: Holding, count: Counter[str]) -> bool:
    if each.packed_bytes:
        return True
    elsewhere = sum(size for sha, size in each.tensors.items() if count[sha] > 1)
    twice = each.large_bytes - sum(each.tensors.values())
    return elsewhere + twice >= WORTH_PACKING * each.plain_bytes
