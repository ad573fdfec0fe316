"""Temporary folders that outlive their process only until the next one looks.

Each has a lock beside it that the system releases when its process ends, however it ends. That also
works across containers that share a store, where process numbers mean nothing.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_ORPHAN_SECONDS = 3600
"""A lock without a folder may be about to get one; after an hour it will not."""


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, removed at the end unless it was renamed away."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / uuid4().hex
    lock = folder.with_suffix(".lock")
    # The lock is held before the folder exists, so a folder whose lock is free belongs to nobody.
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _acquire(descriptor)
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
        lock.unlink(missing_ok=True)


def sweep(parent: Path) -> int:
    """Remove the folders of dead processes; return how many there were."""
    num_removed = 0
    for lock in sorted(parent.glob("*.lock")):
        # Anything may vanish at any moment: its owner or another sweep removed it.
        with suppress(OSError):
            num_removed += _sweep_one(lock)
    return num_removed


def _sweep_one(lock: Path) -> bool:
    folder = lock.with_suffix("")
    if not folder.exists() and time.time() - lock.stat().st_mtime < _ORPHAN_SECONDS:
        return False
    descriptor = os.open(lock, os.O_RDWR)
    try:
        if not _acquire(descriptor):
            return False
        existed = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
    lock.unlink(missing_ok=True)
    return existed


def _acquire(descriptor: int) -> bool:
    """Take the lock of an open file, if it is free."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Taken, or a network disk without locks; there nothing can be known to be dead.
        return False
    return True
