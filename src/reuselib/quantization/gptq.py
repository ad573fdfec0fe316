"""GPTQ: round column by column, and let the columns still to come make up for it.

Frantar et al., 2022, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reuselib.calibration.curvature import BLOCK, inverse_factor
from reuselib.quantization.grid import Grid, restore, round_to, scales

if TYPE_CHECKING:
    from torch import Tensor


NUM_RATIOS = 20
"""Scales that are tried for a group."""


class Codes(NamedTuple):
    """A weight on a grid: `restore(codes, scales)` gives it back."""

    codes: Tensor
    """int8 [out, in]."""
    scales: Tensor
    """fp32 [out, groups]."""


def gptq(
    weight: Tensor,
    gram: Tensor,
    grid: Grid,
    *,
    damping: float = 0.01,
    act_order: bool = False,
    clip: bool = True,
) -> Codes:
    """Codes whose outputs are close to those of the weight.

    The scales of a group are set when its first column is reached, by the weights as they are by then. A weight that
    is zero keeps the code zero, so sparse weights stay sparse.

    Args:
        weight: [out, in], see `calibration.statistics.as_matrix`; not changed.
        gram: `Statistics.gram`, [in, in].
        grid: what to round to.
        damping: see `inverse_factor`.
        act_order: round the columns with the largest inputs first. All scales are then set beforehand, because a
            group's columns no longer follow one another.
        clip: choose the scales that round best, from half of the largest magnitude to all of it, instead of the latter:
            what its errors cost the outputs counts. A paired grid is never clipped.

    Raises:
        ValueError: the group size does not divide the columns.
        TrainingError: see `inverse_factor`.
    """
    import torch

    dense = weight.detach().float()
    order = torch.arange(dense.shape[1])
    if act_order:
        order = gram.diagonal().argsort(descending=True, stable=True)
    factor = inverse_factor(gram[order][:, order], damping)
    costs = factor.diagonal()[order.argsort()].square().reciprocal() if clip else None
    work = _Work(dense[:, order], factor, order, costs, grid)
    work.steps = fitted_scales(dense, grid, costs)
    for start in range(0, dense.shape[1], BLOCK):
        work.round_block(start, min(start + BLOCK, dense.shape[1]), renew=not act_order)
    return Codes(work.codes, work.steps)


def fitted_scales(weight: Tensor, grid: Grid, costs: Tensor | None) -> Tensor:
    """The scales whose rounding errors cost least: of `NUM_RATIOS` parts of those that cover the largest magnitude.

    Args:
        weight: [out, in].
        grid: what to round to.
        costs: what a squared error in each column costs, [in]; None: cover the largest magnitude.

    Returns:
        fp32 [out, groups].
    """
    import torch

    whole = scales(weight, grid)
    if costs is None or grid.paired:
        return whole
    best, least = whole, torch.full_like(whole, float("inf"))
    for number in range(NUM_RATIOS):
        steps = whole * (1 - number / (2 * NUM_RATIOS))
        change = restore(round_to(weight, steps, grid), steps) - weight
        error = (change.square() * costs).unflatten(1, (whole.shape[1], -1)).sum(dim=2)
        better = error < least
        best, least = torch.where(better, steps, best), torch.where(better, error, least)
    return best


class _Work:
    """A weight whose columns stand in the order in which they are rounded."""

    def __init__(
        self, weight: Tensor, factor: Tensor, order: Tensor, costs: Tensor | None, grid: Grid
    ) -> None:
        import torch

        self.codes = torch.zeros_like(weight, dtype=torch.int8)
        """With the columns in their own order."""
        self.steps = torch.ones(len(weight), grid.num_groups(weight.shape[1]))
        self._weight = weight.contiguous()
        self._zero = weight == 0
        self._factor = factor
        self._order: list[int] = order.tolist()
        self._costs = costs
        self._grid = grid
        self._size = weight.shape[1] // self.steps.shape[1]

    def round_block(self, start: int, stop: int, *, renew: bool) -> None:
        """Round the columns from `start` to `stop`, and correct all those after."""
        import torch

        block, factor = self._weight[:, start:stop], self._factor[start:stop, start:stop]
        errors = torch.zeros_like(block)
        for at in range(stop - start):
            column = start + at
            if renew and column and column % self._size == 0:
                self._renew(column, start, errors)
            rounded = self._round(column, block[:, at])
            errors[:, at] = (block[:, at] - rounded) / factor[at, at]
            block[:, at + 1 :] -= errors[:, at : at + 1] * factor[at, at + 1 :]
        self._weight[:, stop:] -= errors @ self._factor[start:stop, stop:]

    def _round(self, column: int, values: Tensor) -> Tensor:
        """Settle the codes of one column; return what they stand for."""
        place = self._order[column]
        step = self.steps[:, place // self._size]
        codes = round_to(values[:, None], step[:, None], self._grid)[:, 0]
        codes[self._zero[:, column]] = 0
        if self._grid.paired and place ^ 1 < self.codes.shape[1]:
            neighbour = self.codes[:, place ^ 1].int()  # 0 if it is still to come
            codes = codes.int().clamp(
                (-128 - neighbour).clamp(-127, 0), (128 - neighbour).clamp(0, 127)
            )
        self.codes[:, place] = codes
        return codes * step

    def _renew(self, column: int, start: int, errors: Tensor) -> None:
        """Set the scales of the group that begins at `column`, by its weights as they are now.

        Those beyond the block have not been corrected for it yet.
        """
        end, beyond = column + self._size, start + errors.shape[1]
        values = self._weight[:, column:end].clone()
        if end > beyond:
            values[:, beyond - column :] -= errors @ self._factor[start:beyond, beyond:end]
        values[self._zero[:, column:end]] = 0
        costs = None if self._costs is None else self._costs[column:end]
        found = fitted_scales(values, Grid(self._grid.bits), costs)
        self.steps[:, column // self._size] = found[:, 0]
