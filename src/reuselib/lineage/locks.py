"""Locks on files, which the system lets go of when their process ends, however it ends."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_PAUSE = 0.2
"""Seconds between two tries where the system cannot wait by itself."""


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Take the lock of an open file if it is free; None if that disk knows no locks, such as some network disks."""
    return _lock(descriptor, shared=shared, wait=False)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which stays, during the block; waits for it. Without locks nothing is held.

    Args:
        path: of the file; made if it is not there, in a folder that is.
        shared: several may hold it at once, but not together with one that does not share.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _lock(descriptor, shared=shared, wait=True)
        yield
    finally:
        os.close(descriptor)


def wait_for(descriptor: int) -> bool | None:
    """Take the lock of an open file as soon as it is free; otherwise as `try_lock`."""
    return _lock(descriptor, shared=False, wait=True)


def same_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name: a lock on a file that was removed means nothing."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int, *, shared: bool, wait: bool) -> bool | None:
    try:
        import fcntl
    except ImportError:  # Windows, which knows no shared locks of this kind
        return _lock_windows(descriptor, wait=wait)
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


def _lock_windows(descriptor: int, *, wait: bool) -> bool:
    import msvcrt

    while True:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore
        except OSError:
            if not wait:
                return False
            time.sleep(_PAUSE)
        else:
            return True
