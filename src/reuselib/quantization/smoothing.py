"""SmoothQuant: move the spread of the inputs into the weights, where it does less harm.

Xiao et al., 2022, https://arxiv.org/abs/2211.10438.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from reuselib.quantization.folding import Balanced, balance

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.calibration.statistics import Statistics
    from reuselib.calibration.streaming import Visit

SMALLEST = 1e-5
"""Channels that are never used are treated as if they were this large."""


def smooth(module: nn.Module, visit: Visit, alpha: float = 0.5) -> Balanced:
    """Smooth the inputs of a block's layers, where a layer before can take it over; the block's outputs stay.

        for visit in stream(module, run.task, batches, layers, gram=False):
            smoothed = smooth(module, visit, 0.5)

    In networks with the norm after the residual sum, such as BERT, only the output projection of attention can be
    smoothed: the sum needs the norm's outputs as they are.

    Args:
        module: changed in place.
        visit: of `calibration.streaming.stream`; go on with the statistics in what is returned.
        alpha: how much of the spread to move, from 0 (weights alone decide) to 1 (inputs become even).

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    return balance(module, visit, partial(smoothing_factor, alpha=alpha))


def smoothing_factor(weights: Sequence[Tensor], statistics: Statistics, alpha: float) -> Tensor:
    """What to divide inputs by: max|x|^alpha / max|w|^(1 - alpha) of each channel.

    Args:
        weights: of all layers that take these inputs, [out, in] each.
        statistics: of the inputs.
        alpha: see `smooth`.

    Returns:
        fp32 [in], positive.
    """
    import torch

    largest = torch.stack([weight.float().abs().amax(dim=0) for weight in weights]).amax(dim=0)
    inputs = statistics.abs_max.clamp(min=SMALLEST)
    return (inputs**alpha / largest.clamp(min=SMALLEST) ** (1 - alpha)).clamp(min=SMALLEST)
