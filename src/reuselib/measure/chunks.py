"""Large tensors a piece at a time, so that what is computed of them needs little memory besides their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

CHUNK = 2**21
"""Entries of a piece: 8 MB in fp32."""


def pieces(shape: Sequence[int], chunk: int = CHUNK) -> Iterator[slice]:
    """Slices along the first dimension that cover a tensor, each of about so many entries and one row at least."""
    num_rows = shape[0] if shape else 1
    width = 1
    for size in shape[1:]:
        width *= size
    step = max(1, chunk // max(1, width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
