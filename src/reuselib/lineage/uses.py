"""When each thing in a store was last used, so that what nobody uses can go first.

A note is an empty file whose time counts. The time at which a file was last read would not do: many
disks do not keep it, and a backup reads everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reuselib.lineage.locks import locked

_LOCK = "lock"


@dataclass(frozen=True)
class Uses:
    """The notes of one store."""

    folder: Path

    def note(self, name: str, place: Path) -> bool:
        """Note that a folder is used from now on; False if it is not there any more.

        Nobody takes it away between the look and the note, see `moving`. A store that cannot be written
        is used without a note.
        """
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / _LOCK, shared=True):
                if not place.is_dir():
                    return False
                (self.folder / name).touch()
        return place.is_dir()

    def last(self, name: str, place: Path) -> float:
        """When something was last used, in seconds since 1970; what was never noted counts from when it was made."""
        for path in (self.folder / name, place):
            with suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    def noted(self) -> dict[str, int]:
        """When each thing was noted last, in nanoseconds: to see later whether it was used since."""
        found: dict[str, int] = {}
        for path in self.folder.glob("*"):
            with suppress(OSError):
                found[path.name] = path.stat().st_mtime_ns
        return found

    def forget(self, name: str) -> None:
        """Remove the note on something that is gone."""
        with suppress(OSError):
            os.unlink(self.folder / name)

    @contextmanager
    def moving(self) -> Iterator[None]:
        """A moment in which nobody begins to use anything: look at the notes once more, then take away.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / _LOCK):
            yield
