"""AWQ: give the channels that matter most more room on the grid, and clip what costs less than it gains.

Lin et al., 2023, https://arxiv.org/abs/2306.00978.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from reuselib.quantization.folding import Balanced, balance
from reuselib.quantization.gptq import Codes
from reuselib.quantization.grid import Grid, restore, round_to, scales

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.calibration.statistics import Statistics
    from reuselib.calibration.streaming import Visit

NUM_STEPS = 20
"""Exponents and clipping ratios that are tried."""
SMALLEST_CLIP = 0.5
"""The smallest part of a group's range that is tried."""


def protect(module: nn.Module, visit: Visit, grid: Grid) -> Balanced:
    """Scale channels up before rounding, where a layer before can take it over; the block's outputs stay.

        for visit in stream(module, run.task, batches, layers):
            protected = protect(module, visit, grid)
            for name, statistics in protected.layers.items():
                codes = awq(as_matrix(module.get_submodule(name)), statistics.gram, grid)

    Args:
        module: changed in place.
        visit: of `calibration.streaming.stream`; go on with the statistics in what is returned.
        grid: what the layers will be rounded to.
    """
    return balance(module, visit, partial(protecting_factor, grid=grid))


def protecting_factor(weights: Sequence[Tensor], statistics: Statistics, grid: Grid) -> Tensor:
    """What to divide inputs by, and to multiply columns by: mean |x| to the exponent that changes outputs least.

    Args:
        weights: of all layers that take these inputs, [out, in] each.
        statistics: of the inputs, with `gram`.
        grid: what the layers will be rounded to.

    Returns:
        fp32 [in], positive; all 1 if nothing is better.
    """
    import torch

    best, least = torch.ones_like(statistics.abs_mean), float("inf")
    for number in range(NUM_STEPS):
        factor = statistics.abs_mean.clamp(min=1e-6) ** (number / NUM_STEPS)
        factor = (factor / (factor.max() * factor.min()).sqrt()).clamp(min=1e-4)
        error = 0.0
        for weight in weights:
            scaled = weight.float() * factor
            rounded = restore(round_to(scaled, scales(scaled, grid), grid), scales(scaled, grid))
            error += float(_errors(rounded / factor - weight, _gram(statistics), 1).sum())
        if error < least:
            best, least = factor, error
    return best


def awq(weight: Tensor, gram: Tensor, grid: Grid) -> Codes:
    """Round to nearest, with each group's range clipped to the part that changes outputs least.

    Args:
        weight: [out, in], see `calibration.statistics.as_matrix`; not changed.
        gram: `Statistics.gram`, [in, in].
        grid: what to round to.

    Raises:
        ValueError: the group size does not divide the columns.
    """
    import torch

    dense = weight.detach().float()
    whole = scales(dense, grid)
    best, least = whole, torch.full_like(whole, float("inf"))
    # clipped codes of neighbours may add up to more than a paired grid allows
    for number in range(1 if grid.paired else NUM_STEPS):
        steps = whole * (1 - (1 - SMALLEST_CLIP) * number / NUM_STEPS)
        rounded = restore(round_to(dense, steps, grid), steps)
        errors = _errors(rounded - dense, gram, whole.shape[1])
        better = errors < least
        best, least = torch.where(better, steps, best), torch.where(better, errors, least)
    return Codes(round_to(dense, best, grid), best)


def _gram(statistics: Statistics) -> Tensor:
    if statistics.gram is None:
        raise ValueError("AWQ needs statistics with `gram=True`")
    return statistics.gram


def _errors(change: Tensor, gram: Tensor, num_groups: int) -> Tensor:
    """Mean squared change of each output that is due to each group of columns alone: [out, groups]."""
    import torch

    grouped = change.float().unflatten(1, (num_groups, -1)).transpose(0, 1)  # [groups, out, size]
    size = grouped.shape[2]
    own = torch.stack([gram[at : at + size, at : at + size] for at in range(0, len(gram), size)])
    return ((grouped @ own) * grouped).sum(dim=2).T
