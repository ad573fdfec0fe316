"""The most memory that something took."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


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
    try:
        told = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        told = None
    if told:
        return int(told[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else
