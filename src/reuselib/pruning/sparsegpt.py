"""SparseGPT: leave weights out and let those that stay make up for it.

Frantar and Alistarh, 2023, https://arxiv.org/abs/2301.00774.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reuselib.calibration.curvature import BLOCK, inverse_factor
from reuselib.pruning.wanda import checked_pattern, num_zeros, ranks

if TYPE_CHECKING:
    from torch import Tensor


def sparsegpt(
    weight: Tensor,
    gram: Tensor,
    *,
    sparsity: float | None = None,
    pattern: tuple[int, int] | None = None,
    damping: float = 0.01,
) -> Tensor:
    """A sparse weight whose outputs are close to those of the dense one.

    Columns are settled from left to right, `BLOCK` at a time. In each block the weights go that cost least, anywhere
    in its rows, and the columns to the right are changed so that the outputs change least. A weight that is zero
    already stays zero.

    Args:
        weight: [out, in], see `calibration.statistics.as_matrix`; not changed.
        gram: `Statistics.gram`, [in, in].
        sparsity: share of zeros, exact to one weight in the whole tensor, unless more are zero already.
        pattern: (n, m): at most n weights stay among each m neighbours of a row. Give this or `sparsity`.
        damping: see `inverse_factor`.

    Returns:
        fp32 [out, in].

    Raises:
        ValueError: neither or both are given, the sparsity is not between 0 and 1, or m does not divide the columns.
        TrainingError: see `inverse_factor`.
    """
    if (sparsity is None) == (pattern is None):
        raise ValueError("give either a sparsity or a pattern")
    dense = weight.detach().float()
    if pattern is not None:
        checked_pattern(pattern, dense.shape[1])
    quotas = [] if sparsity is None else _quotas(dense == 0, num_zeros(sparsity, dense.numel()))
    factor = inverse_factor(gram, damping)
    result = dense.clone()
    for number, start in enumerate(range(0, dense.shape[1], BLOCK)):
        stop = min(start + BLOCK, dense.shape[1])
        inner = factor[start:stop, start:stop]
        empty = dense[:, start:stop] == 0
        block = result[:, start:stop]
        goes = None if pattern else _cheapest(block, inner.diagonal(), empty, quotas[number])
        errors = _settle(block, inner, empty, goes, pattern)
        result[:, stop:] -= errors @ factor[start:stop, stop:]
    return result


def _settle(
    block: Tensor,
    factor: Tensor,
    empty: Tensor,
    goes: Tensor | None,
    pattern: tuple[int, int] | None,
) -> Tensor:
    """Zero weights of a block in place, column by column; return what each column costs, for the columns after it.

    Args:
        block: [out, block].
        factor: that part of the inverse factor, [block, block].
        empty: what is zero from the start.
        goes: what is to become zero; None: choose by the pattern, with the weights as they are by then.
        pattern: (n, m).
    """
    import torch

    goes = empty.clone() if goes is None else goes
    errors = torch.zeros_like(block)
    for at in range(block.shape[1]):
        if pattern is not None and at % pattern[1] == 0:
            stays, group = pattern
            here = slice(at, at + group)
            costs = _costs(block[:, here], factor.diagonal()[here], empty[:, here])
            goes[:, here] |= ranks(costs) < group - stays
        column = block[:, at].clone()
        block[:, at] = torch.where(goes[:, at], 0.0, column)
        errors[:, at] = (column - block[:, at]) / factor[at, at]
        block[:, at + 1 :] -= errors[:, at : at + 1] * factor[at, at + 1 :]
    block[goes] = 0.0
    return errors


def _costs(block: Tensor, diagonal: Tensor, empty: Tensor) -> Tensor:
    """What the outputs lose by each weight; nothing by those that are zero already."""
    return (block / diagonal).square().masked_fill(empty, -1.0)


def _cheapest(block: Tensor, diagonal: Tensor, empty: Tensor, quota: int) -> Tensor:
    """Mark the `quota` weights that cost least; of equals, the first."""
    import torch

    order = _costs(block, diagonal, empty).flatten().argsort(stable=True)
    goes = torch.zeros(block.numel(), dtype=torch.bool)
    goes[order[:quota]] = True
    return goes.view_as(block)


def _quotas(empty: Tensor, zeros: int) -> list[int]:
    """How many weights of each block of columns are to be zero: those that are, and an even share of the rest."""
    rows, columns = empty.shape
    more = max(0, zeros - int(empty.sum()))
    room = rows * columns - int(empty.sum())
    quotas, given, seen = [], 0, 0
    for start in range(0, columns, BLOCK):
        there = empty[:, start : start + BLOCK]
        seen += int((~there).sum())
        goal = more * seen // room if room else 0
        quotas.append(int(there.sum()) + goal - given)
        given = goal
    return quotas
