"""How much memory there is, how much this process holds, and the most that something took."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
KEPT_KERNELS = 512
"""How many products of bf16 or integers to keep a kernel for. oneDNN makes one for each shape, of half a megabyte, and
would keep 1024: half a gigabyte after some epochs of rows of all lengths. Too few cost time, where one pass through a
network needs more: EfficientNet-B0 in bf16 takes twice as long with 256, and as long as ever with 384."""
_CAPACITIES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Variables for it: oneDNN's own, and that of torch's layer above it, which holds on to the same."""


@dataclass
class Peak:
    """Filled in when the block ends."""

    num_bytes: int | None = None
    """None where the system does not tell."""


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """The most memory that this process held within; on a GPU, the most that torch took there.

    Linux can forget an earlier peak. Where that is not possible it counts, so the figure is then the peak of the
    whole process so far.
    """
    import torch

    found = Peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget()
    try:
        yield found
    finally:
        found.num_bytes = peak_so_far()


def _forget() -> None:
    try:
        _RESET.write_text("5")  # see proc(5): sets the peak to what is resident now
    except OSError:
        return  # not Linux, or not allowed


def peak_so_far() -> int | None:
    """The most memory that this process held until now, or since `peak_memory` began; on a GPU, what torch took."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    told = _field(_STATUS, "VmHWM")
    if told is not None:
        return told
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else


def resident() -> int:
    """What this process holds in memory now, files that it has mapped included; 0 where the system does not tell."""
    return _field(_STATUS, "VmRSS") or 0


def give_back() -> None:
    """Let go of memory that was freed, but is still held for what may come; for between two phases of a run.

    glibc keeps what lies between blocks that are in use, see malloc_trim(3). Other C libraries are left alone. It takes
    some 10 milliseconds, and what comes next takes its memory from the system again.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def keep_few_kernels() -> None:
    """Have this process, and those that it starts, keep no more than `KEPT_KERNELS`; what the user set is left alone.

    It has an effect only before the first such product: the variables are read once. Results are the same.
    """
    for name in _CAPACITIES:
        os.environ.setdefault(name, str(KEPT_KERNELS))


def num_kept_kernels() -> int:
    """How many kernels this process keeps at most."""
    told = os.environ.get(_CAPACITIES[0], "")
    return int(told) if told.isdigit() else KEPT_KERNELS


def available() -> int | None:
    """How much more memory this process could take without swapping; None where the system does not tell.

    The least of what the machine has free, what its control groups leave (cgroup v1 and v2), and its own limits.
    """
    rooms = [_field(_PROC / "meminfo", "MemAvailable"), *_control_group_rooms(), *_own_rooms()]
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else None


def _field(path: Path, name: str) -> int | None:
    """A figure that a file of the system gives in kilobytes."""
    try:
        told = re.search(rf"^{name}:\s*(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(told[1]) * 1024 if told else None


def _control_group_rooms() -> Iterator[int]:
    """What each group that this process is in still leaves; files that could be let go of do not count as taken."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers in ("", "memory"):
            top = _CONTROL_GROUPS / controllers
            names = ("memory.max", "memory.current", "inactive_file")
            if controllers:
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            inner = top / place.lstrip("/")
            for folder in (inner, *inner.parents):
                if folder.is_relative_to(top):
                    yield from _room_in(folder, *names)


def _room_in(folder: Path, limit: str, usage: str, droppable: str) -> Iterator[int]:
    try:
        most, taken = ((folder / name).read_text().strip() for name in (limit, usage))
        told = re.search(
            rf"^{droppable} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE
        )
    except OSError:
        return
    if most.isdigit():  # else it says `max`
        yield int(most) - int(taken) + (int(told[1]) if told else 0)


def _own_rooms() -> Iterator[int]:
    """What the limits of the process leave, see setrlimit(2)."""
    if sys.platform == "win32":
        return
    import resource

    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(kind)[0]
        taken = _field(_STATUS, name)
        if limit != resource.RLIM_INFINITY and taken is not None:
            yield limit - taken
