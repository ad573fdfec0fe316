"""Rooms of a store: folders named by digests, each of which appears by one rename, complete and on the disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import StoreError
from reuselib.lineage.disk import blames_disk, explain, make_folder, sync, sync_tree, writing
from reuselib.lineage.scratch import scratch, sweep

DIGEST = "[0-9a-f]{64}"
TMP = "tmp"
"""Folder of a store in which everything grows."""


@dataclass(frozen=True)
class Room:
    """One kind of things that a store keeps."""

    store: Path
    name: str

    @property
    def folder(self) -> Path:
        """Which need not exist yet."""
        return self.store / self.name

    def place(self, digest: str, *parts: str) -> Path:
        """Where something is, if it is there.

        Args:
            digest: whose it is.
            parts: further names, for a room that keeps several things under one digest.

        Raises:
            StoreError: that is no digest.
        """
        require_digest(digest)
        return self.folder.joinpath(digest, *parts)

    @contextmanager
    def fill(
        self, digest: str, *parts: str, is_whole: Callable[[Path], bool] | None = None
    ) -> Iterator[Path]:
        """An empty folder that becomes the thing at the end of the block, or vanishes if the block raises.

        Args:
            digest: as in `place`.
            parts: as in `place`.
            is_whole: what is there already, or was put there by a faster process, stays if it is; None: never.

        Raises:
            StoreError: that is no digest, the store cannot be written, or the disk is full.
        """
        target = self.place(digest, *parts)
        whole = is_whole or _never
        tmp = self.store / TMP
        with ExitStack() as stack:
            with writing(self.store):
                sweep(tmp)
                make_folder(target.parent)
                outer = stack.enter_context(scratch(tmp))
                folder = outer / "new"
                folder.mkdir()
            with _explaining_disk(self.store):
                yield folder
            with writing(self.store):
                sync_tree(folder)
                if target.exists() and not whole(target):
                    # Nothing appears here in parts, so this was damaged by hand.
                    target.rename(outer / "damaged")
                try:
                    folder.rename(target)
                except OSError:
                    # Another process was faster, and its result is the same.
                    if not whole(target):
                        raise
                sync(target.parent)


def require_digest(digest: str) -> None:
    """Refuse what is no digest: it becomes a file name, so it must not be able to leave the store."""
    if not re.fullmatch(DIGEST, digest):
        raise StoreError(f"{digest!r} is not a digest", expected="64 lower-case hex digits")


def _never(_: Path) -> bool:
    return False


@contextmanager
def _explaining_disk(path: Path) -> Iterator[None]:
    """Put a full or failing disk into words; all other errors of a block are its own business."""
    try:
        yield
    except Exception as error:
        if not blames_disk(error):
            raise
        raise explain(error, path) from error
