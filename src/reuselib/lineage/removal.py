"""Taking single things out of a store, each by one rename, so that no part of it is ever seen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import ReuseError
from reuselib.lineage.disk import sync, writing
from reuselib.lineage.manifest import read_payload
from reuselib.lineage.packed import FILES, pack, read_back, unnamed
from reuselib.lineage.rooms import Room
from reuselib.lineage.scratch import scratch
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify


@dataclass(frozen=True)
class Remover:
    """For who has decided what goes. Each call gives the reason why it stays after all; empty if it is gone."""

    store: Store
    noted: Mapping[str, int]
    """`Uses.noted` when it was decided: what was used since then stays."""

    def cache(self, room: str, name: str) -> str:
        """Something that can be made again."""
        why = self._take(name, self.store.path / room / name)
        if not why and room not in ("checkpoints", "states"):  # whose names are those of children
            self.store.uses.forget(name)
        return why

    def base(self, name: str) -> str:
        """A base that was kept."""
        why = self._take(name, self.store.roots / name)
        if not why:
            self.store.uses.forget(name)
        return why

    def child(self, name: str, dir_hash: str) -> str:
        """A child in both of its forms, and the notes on it."""
        places = (self.store.models / name, self.store.packed / name)
        why = self._take(name, *places)
        if not why:
            self.store.uses.forget(name)
            self.store.verdicts.note(name, ())
            self.store.forget_root(dir_hash, places[0])
        return why

    def pack(self, name: str) -> str:
        """Put a child into packed form, read that back, then take the plain one away."""
        plain, packed = self.store.models / name, self.store.packed / name
        try:
            if not self._is_same(plain, packed) and (why := self._write(plain, packed)):
                return why
        except ReuseError as error:
            return f"it cannot be packed: {error.what}"
        with writing(self.store.path):
            sync(packed.parent)  # who put it there may have been killed before that
        return self._take(name, plain)

    def stray(self) -> None:
        """Shared tensors that nobody names."""
        with writing(self.store.path):
            for path in unnamed(self.store.packed, self.store.tensors):
                path.unlink(missing_ok=True)
                with suppress(OSError):  # others are left in it
                    path.parent.rmdir()

    def _write(self, plain: Path, packed: Path) -> str:
        report = verify(plain)
        if not report.ok:
            return f"it is not as recorded: {report.problems[0]}"
        store = self.store
        with writing(store.path), scratch(store.tmp) as outer:
            if packed.is_dir():  # damaged, or of a child that was made anew since
                packed.rename(outer / "packed")
            store.tensors.mkdir(parents=True, exist_ok=True)
            blobs = outer / "tensors"
            blobs.mkdir()
            with Room(store.path, store.packed.name).fill(
                packed.name, is_whole=Path.is_dir
            ) as folder:
                pack(plain, store.tensors, folder, blobs)
                read_back(folder, store.tensors)
        return ""

    def _is_same(self, plain: Path, packed: Path) -> bool:
        """Whether a packed form is whole, and that of this child."""
        try:
            if read_payload(plain) != read_payload(packed / FILES):
                return False
            read_back(packed, self.store.tensors)
        except (ReuseError, OSError):
            return False
        return True

    def _take(self, name: str, *places: Path) -> str:
        with writing(self.store.path), scratch(self.store.tmp) as outer, self.store.uses.moving():
            if self._is_used(name):
                return "it is being used now"
            taken = [place for place in places if place.exists()]
            for number, place in enumerate(taken):
                os.rename(place, outer / str(number))
            # Before any part of these goes: after a power cut the rest of it would be back.
            for place in taken:
                sync(place.parent)
        return ""

    def _is_used(self, name: str) -> bool:
        claims = self.store.claims.held()
        needed = name in claims or any(name in needs for needs in claims.values())
        return needed or self.store.uses.noted().get(name) != self.noted.get(name)
