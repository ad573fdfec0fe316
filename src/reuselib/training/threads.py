"""As many threads as there are cores for this process, unless the user decided otherwise."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

MAX_THREADS = 1024
CORES = "REUSELIB_CORES"
"""Variable of the environment: how many cores `launch` divided, where the user had not decided about threads."""
_fixed: ContextVar[int | None] = ContextVar("number of threads", default=None)


def num_cores() -> int:
    """Physical cores that this process may use: affinity, hyper-threads and container quota are respected."""
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
    siblings = {_siblings(cpu) for cpu in allowed}
    quota = _quota()
    return max(1, min(len(siblings), quota) if quota else len(siblings))


@contextmanager
def all_cores() -> Iterator[int]:
    """Use all cores within, divided among the processes of this machine; restore the setting afterwards.

    `OMP_NUM_THREADS`, when set, is the user's word and left alone.
    """
    import torch

    before, fixed = torch.get_num_threads(), _fixed.get()
    if fixed is not None:
        torch.set_num_threads(fixed)
    elif not os.environ.get("OMP_NUM_THREADS"):
        num_processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
        wanted = max(1, num_cores() // num_processes)
        if wanted != before:
            torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def as_many(threads: int) -> Iterator[None]:
    """Compute with so many threads within, whatever cores there are and `OMP_NUM_THREADS` says.

    How a sum is divided among threads decides its last bits, so what was computed with other threads is only computed
    again with as many.
    """
    import torch

    before = torch.get_num_threads()
    number = min(max(threads, 1), MAX_THREADS)
    token = _fixed.set(number)
    torch.set_num_threads(number)
    try:
        yield
    finally:
        _fixed.reset(token)
        torch.set_num_threads(before)


@contextmanager
def undivided() -> Iterator[None]:
    """All cores that were divided among the processes of this machine, for the one that works while they wait."""
    cores = int(os.environ.get(CORES) or 0)
    if not cores or _fixed.get() is not None:
        yield
        return
    with as_many(cores):
        yield


@contextmanager
def divided() -> Iterator[None]:
    """This process's part of the cores again, within `undivided`."""
    cores, own = int(os.environ.get(CORES) or 0), int(os.environ.get("OMP_NUM_THREADS") or 0)
    if not (cores and own) or _fixed.get() != cores:
        yield
        return
    with as_many(own):
        yield


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip() or str(cpu)
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return None
