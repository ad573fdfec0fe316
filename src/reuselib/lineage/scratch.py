"""Temporary folders that outlive their process only until the next one looks.

Each has a lock beside it that the system releases when its process ends, however it ends. That also
works across containers that share a store, where process numbers mean nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from reuselib.lineage.disk import make_folder, sync
from reuselib.lineage.locks import same_file, try_lock


@contextmanager
def scratch(parent: Path, prefix: str = "") -> Iterator[Path]:
    """An empty folder in `parent`, removed at the end unless it was renamed away.

    Args:
        parent: made if it is not there.
        prefix: of the folder's name, for a `parent` that is not ours alone.

    Raises:
        OSError: it cannot be made. That it cannot be removed is left to the next `sweep`.
    """
    make_folder(parent)
    folder, lock, descriptor = _claim(parent, prefix)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            os.close(descriptor)
            if not folder.exists():  # without its lock nobody would ever dare to remove it
                lock.unlink(missing_ok=True)


def sweep(parent: Path, prefix: str = "", rescue: Callable[[Path], None] | None = None) -> int:
    """Remove the folders of dead processes; return how many there were.

    Args:
        parent: where they are.
        prefix: as they were made with.
        rescue: called with each before it is removed. It stays if that raises an `OSError`. None: what was moved
            there from the folders beside `parent` is made to be gone from these.
    """
    name = re.compile(rf"({re.escape(prefix)}[0-9a-f]{{32}})(\.lock)?")
    num_removed = 0
    with suppress(OSError):  # there is nothing to sweep, or it may not be looked at
        found = [name.fullmatch(path.name) for path in parent.iterdir()]
        # A folder without a lock has no owner either: a power cut can take the lock alone.
        for folder in sorted({match[1] for match in found if match}):
            # Anything may vanish at any moment: its owner or another sweep removed it.
            with suppress(OSError):
                num_removed += _sweep_one(parent / folder, rescue)
    return num_removed


def _claim(parent: Path, prefix: str) -> tuple[Path, Path, int]:
    """A name for a folder, and its lock: held before the folder is there, so that a free lock belongs to nobody."""
    while True:
        folder = parent / f"{prefix}{uuid4().hex}"
        lock = _lock_of(folder)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            # A sweep may have come between the two, and taken the file for that of a dead process.
            if try_lock(descriptor) is not False and same_file(descriptor, lock):
                return folder, lock, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _sweep_one(folder: Path, rescue: Callable[[Path], None] | None) -> bool:
    lock = _lock_of(folder)
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        # Without locks, as on some network disks, nothing can be known to be dead.
        if not try_lock(descriptor):
            return False
        existed = folder.exists()
        if existed:
            (rescue or _settle)(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            return False
        if os.name != "nt":  # Windows removes no open file; there a claim in between is lost
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    lock.unlink(missing_ok=True)
    return existed


def _settle(folder: Path) -> None:
    """Make what was moved here be gone from where it was, beside the folder that all of these grow in.

    Who moved it may have been killed before that; after a power cut it might be back there without what goes here.
    """
    for place in folder.parent.parent.iterdir():
        if place.is_dir():
            sync(place)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
