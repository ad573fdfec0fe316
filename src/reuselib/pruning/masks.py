"""Which single weights to zero: a share of a tensor, or all but N of every M in a row.

Everything here works on scores, the absolute weights if there is nothing better. Ties go by position, so that a
mask is exact to one weight, and the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}
"""By name: how many weights stay of how many that follow one another along a layer's inputs."""


@dataclass(frozen=True)
class Quota:
    """How many weights of a matrix go. One of the two is given."""

    sparsity: float | None = None
    """A share of them, exact to one weight."""
    pattern: str | None = None
    """All but N of every M along the inputs, one of `PATTERNS`."""

    @property
    def group(self) -> tuple[int, int] | None:
        """The numbers of the pattern, if there is one."""
        return PATTERNS[self.pattern] if self.pattern is not None else None

    def smallest(self, matrix: Tensor) -> Tensor:
        """What goes by the weights alone: a mask of the matrix, [out, in] (bool)."""
        if self.pattern is not None:
            return smallest_of_each(matrix.abs(), self.pattern)
        return smallest(matrix.abs(), num_zeros(matrix.numel(), self.sparsity or 0.0))

    def bounds(self, num_weights: int, before: int) -> tuple[int, int]:
        """How many zeros a matrix may hold afterwards, least and most, that held some `before`."""
        if self.group is None:
            wanted = num_zeros(num_weights, self.sparsity or 0.0)
        else:
            stays, size = self.group
            wanted = num_weights // size * (size - stays)
        if before == 0:
            return wanted, wanted
        # where they lie decides: some may lie where a zero was to go anyway
        return max(wanted, before), min(num_weights, wanted + before)


def num_zeros(num_weights: int, sparsity: float) -> int:
    """The nearest whole number of weights to that share; half is rounded to even."""
    return round(num_weights * sparsity)


def smallest(scores: Tensor, number: int) -> Tensor:
    """A mask of the `number` smallest scores, of their shape (bool); of equal ones those that come first."""
    import torch

    flat = scores.flatten()
    if number <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = flat.kthvalue(number).values
    mask = flat < threshold
    equal = (flat == threshold).nonzero().flatten()
    mask[equal[: number - int(mask.sum())]] = True
    return mask.view(scores.shape)


def smallest_of_each(scores: Tensor, pattern: str) -> Tensor:
    """A mask of all but the N largest of every M scores along the last dimension (bool); M must divide it.

    Args:
        scores: [..., inputs].
        pattern: `N:M`, one of `PATTERNS`.
    """
    import torch

    kept, size = PATTERNS[pattern]
    groups = scores.reshape(-1, size)
    order = groups.argsort(dim=1, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(1, order[:, : size - kept], True)
    return mask.view(scores.shape)


def num_too_full(weight: Tensor, pattern: str) -> int:
    """How many groups of M along the last dimension hold more than N weights that are not zero."""
    kept, size = PATTERNS[pattern]
    return int(((weight.reshape(-1, size) != 0).sum(dim=1) > kept).sum())
