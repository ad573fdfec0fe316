"""SHA-256 of many pieces of files at once, on all cores.

hashlib lets go of the interpreter lock while it works, so plain threads are enough. Files are read
rather than mapped: a file that shrinks under a mapping kills the process, whereas a short read is
an error one can explain.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reuselib.errors import IntegrityError, SourceError

T = TypeVar("T")

_CHUNK = 2**18  # Small enough to stay in the second-level cache between reading and hashing.

_FEW = 2**20


@dataclass(frozen=True)
class Span:
    """A piece of a file."""

    path: Path
    start: int = 0
    end: int | None = None
    """The first byte that is no longer part of it; `None` for the end of the file, wherever it is."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        end = self.path.stat().st_size if self.end is None else self.end
        return end - self.start


def num_cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sha256_all(spans: Sequence[Span]) -> list[str]:
    """The digest of every span, in the order given.

    Raises:
        SourceError: a file cannot be read.
        IntegrityError: `TRUNCATED`, a file ends before a span does.
    """
    try:
        sizes = [span.size for span in spans]
    except OSError as error:
        raise _unreadable(error) from error
    return _on_all_cores(sha256, spans, sizes)


def sha256_memory(pieces: Sequence[memoryview]) -> list[str]:
    """The digest of every piece of memory, in the order given. Nobody may write to them meanwhile."""
    return _on_all_cores(
        lambda piece: hashlib.sha256(piece).hexdigest(), pieces, [piece.nbytes for piece in pieces]
    )


def _on_all_cores(
    digest: Callable[[T], str], items: Sequence[T], sizes: Sequence[int]
) -> list[str]:
    if sum(sizes) <= _FEW:
        return [digest(item) for item in items]  # less work than starting threads
    # The largest first: otherwise one large piece, begun last, leaves the other cores idle.
    order = sorted(range(len(items)), key=lambda index: -sizes[index])
    pool = ThreadPoolExecutor(num_cores())
    try:
        digests = dict(zip(order, pool.map(digest, [items[index] for index in order]), strict=True))
    finally:
        # Whoever interrupts should not wait for gigabytes that nobody needs any more.
        pool.shutdown(cancel_futures=True)
    return [digests[index] for index in range(len(items))]


def sha256(span: Span) -> str:
    """The digest of one span, as 64 hex digits."""
    digest = hashlib.sha256()
    left = -1 if span.end is None else span.end - span.start
    buffer = memoryview(bytearray(_CHUNK if left < 0 else min(left, _CHUNK)))
    try:
        with span.path.open("rb", buffering=0) as file:
            file.seek(span.start)
            while left:
                num_read = file.readinto(buffer if left < 0 else buffer[:left])
                if not num_read:
                    break
                digest.update(buffer[:num_read])
                left -= num_read if left > 0 else 0
    except OSError as error:
        raise _unreadable(error) from error
    if left > 0:
        raise IntegrityError(
            "TRUNCATED", f"{span.path.name} ends {left} bytes early", path=span.path.name
        )
    return digest.hexdigest()


def _unreadable(error: OSError) -> SourceError:
    return SourceError(
        f"cannot read {error.filename}: {error.strerror}",
        expected="a file that this user may read",
        fix="check that the path exists and its permissions",
    )
