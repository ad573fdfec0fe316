"""Wanda: leave out the weights that matter least to the outputs, row by row.

Sun et al., 2023, https://arxiv.org/abs/2306.11695.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def wanda(
    weight: Tensor,
    norm: Tensor,
    *,
    sparsity: float | None = None,
    pattern: tuple[int, int] | None = None,
) -> Tensor:
    """Which weights to keep: those with the largest |weight| x norm of the input they multiply, in each row.

    Nothing is solved for: the weights that stay are left as they are. Of equals, those further to the left go first.

    Args:
        weight: [out, in], see `calibration.statistics.as_matrix`.
        norm: `Statistics.norm`, [in].
        sparsity: share of zeros, exact to one weight in the whole tensor; rows differ by at most one.
        pattern: (n, m): at most n weights stay among each m neighbours of a row. Give this or `sparsity`.

    Returns:
        bool [out, in].

    Raises:
        ValueError: neither or both are given, the sparsity is not between 0 and 1, or m does not divide the columns.
    """
    import torch

    scores = weight.detach().float().abs() * norm.float()
    rows, columns = scores.shape
    if pattern is not None and sparsity is None:
        stays, group = checked_pattern(pattern, columns)
        return (ranks(scores.unflatten(1, (-1, group))) >= group - stays).flatten(1)
    if sparsity is None or pattern is not None:
        raise ValueError("give either a sparsity or a pattern")
    zeros = num_zeros(sparsity, scores.numel())
    share, left = divmod(zeros, rows)
    quota = torch.full((rows, 1), share)
    quota[:left] += 1
    return ranks(scores) >= quota


def num_zeros(sparsity: float, num_weights: int) -> int:
    """How many weights a share stands for.

    Raises:
        ValueError: the share is not between 0 and 1, both excluded.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"sparsity must be between 0 and 1, got {sparsity}")
    return round(sparsity * num_weights)


def checked_pattern(pattern: tuple[int, int], columns: int) -> tuple[int, int]:
    """The pattern (n, m) itself.

    Raises:
        ValueError: n is not below m, or m does not divide the columns.
    """
    stays, group = pattern
    if not 0 < stays < group:
        raise ValueError(f"a pattern n:m needs 0 < n < m, got {stays}:{group}")
    if columns % group:
        raise ValueError(f"the pattern {stays}:{group} does not divide {columns} columns")
    return stays, group


def ranks(scores: Tensor) -> Tensor:
    """The place of each score among those in its last dimension, smallest first; of equals the left one."""
    order = scores.argsort(dim=-1, stable=True)
    return order.argsort(dim=-1)
