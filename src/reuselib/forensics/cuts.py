"""Whether a smaller tensor consists of slices of a larger one: what structured pruning leaves."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MAX_BYTES = 1 << 28
"""Of the larger tensor: digests of its slices are kept, so larger ones are left out."""


@dataclass(frozen=True)
class Cut:
    """How much of the smaller tensor is found in the larger one."""

    axis: int
    """Along which slices were compared."""
    found: int
    """Slices of the smaller one that the larger one holds, bit for bit."""
    of: int

    @property
    def holds(self) -> bool:
        """Whether nearly all are; equal slices by chance, such as zeros, are no reason to doubt the others."""
        return self.of > 0 and self.found >= 0.9 * self.of


def is_cut(one: Tensor, other: Tensor) -> Cut | None:
    """Compare slices along the one axis on which two tensors differ in size; None if that says nothing.

    Tensors cut along two axes are not compared: which columns are left would have to be known first.
    """
    if one.ndim != other.ndim or one.dtype != other.dtype or one.ndim == 0:
        return None
    axes = [axis for axis in range(one.ndim) if one.shape[axis] != other.shape[axis]]
    large, small = (one, other) if one.numel() >= other.numel() else (other, one)
    if len(axes) != 1 or large.numel() * large.element_size() > _MAX_BYTES or not small.numel():
        return None
    axis = axes[0]
    pool = Counter(_digests(large, axis))
    wanted = Counter(_digests(small, axis))
    return Cut(axis, (pool & wanted).total(), wanted.total())


def _digests(tensor: Tensor, axis: int) -> list[bytes]:
    import torch

    rows = tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
    return [
        hashlib.blake2b(
            row.contiguous().view(torch.uint8).numpy().tobytes(), digest_size=16
        ).digest()
        for row in rows
    ]
