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

from reuselib.lineage.locks import try_lock

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
        try_lock(descriptor)
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
        # Without locks, as on some network disks, nothing can be known to be dead.
        if not try_lock(descriptor):
            return False
        existed = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
    lock.unlink(missing_ok=True)
    return existed
