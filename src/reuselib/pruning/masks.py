"""Which single weights to zero: a share of a tensor, or all but N of every M in a row.

Everything here works on scores, the absolute weights if there is nothing better. Ties go by position, so that a
mask is exact to one weight, and the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PATTERNS = {"2:4": (2, 4), "4:8": (4, 8)}
"""By name: how many weights stay of how many that follow one another along a layer's inputs."""


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
