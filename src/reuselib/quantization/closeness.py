"""What must hold of codes that were chosen with an eye on data: near the parent's weights, and settled from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from reuselib.adapter import Finding
from reuselib.quantization.gptq import NUM_RATIOS
from reuselib.quantization.grid import Grid, round_to, scales
from reuselib.quantization.pairs import Pair, Piece

if TYPE_CHECKING:
    from torch import Tensor

FARTHEST = 8.0
"""By how much GPTQ's change of a weight, which makes up for errors of the outputs, may exceed that of rounding to the
nearest; on MiniLM it is 1.9 times as large. Another model's weights are off by their whole norm."""


def within(pair: Pair, bounds: Mapping[str, float]) -> Finding:
    """No layer is further from the parent's than recorded: the norm of the change, relative to the weight's."""
    claim = "every quantized weight is as close to the parent's as recorded"
    worst = 0.0
    for name, how in pair.layers.items():
        if name not in bounds:
            return Finding(claim, False, "there is no bound for it", name)
        found = pair.moved(name, how)
        worst = max(worst, found)
        # not exactly the recorded figure: sums depend on how many threads add them up
        if not found <= bounds[name] * (1 + 1e-4):
            return Finding(
                claim, False, f"changed by {found:.4g}, recorded {bounds[name]:.4g}", name
            )
    return Finding(
        claim, True, f"at most {worst:.4g} of a weight's norm", compared=pair.num_tensors
    )


def clipped(pair: Pair) -> Finding:
    """AWQ: each scale is one that it tries, and each code the nearest with that scale."""
    claim = "every scale is a part of the parent's range that AWQ tries, every code the nearest"
    for name, how in pair.layers.items():
        for piece in pair.in_pieces(name, how):
            if not _is_tried(piece.rounded.scales, piece.weight, how.grid).all():
                return Finding(claim, False, "a scale is none of them", f"{name}.weight_scale")
            codes = round_to(piece.weight, piece.rounded.scales, how.grid)
            if not codes.equal(piece.rounded.codes):
                return Finding(claim, False, "a code is not the nearest", name)
    return Finding(claim, True, "replayed bit for bit but for the choice of the scale")


def compensated(pair: Pair) -> Iterator[Finding]:
    """GPTQ: what it settles before it makes up for anything is the parent's; the rest is near that."""
    started = "what GPTQ settles first, scales and the first column, is the parent's, rounded"
    near = f"no weight changed by more than {FARTHEST:g} times what rounding to the nearest would change"
    worst = 0.0
    for name, how in pair.layers.items():
        faults = (_not_started(piece, how.grid) for piece in pair.in_pieces(name, how))
        if odd := next((fault for fault in faults if fault), ""):
            yield Finding(started, False, odd, name)
            return
        least = pair.moved(name, how, to_nearest=True)
        found = pair.moved(name, how)
        worst = max(worst, found / max(least, 1e-30))
        if not found <= FARTHEST * least + 1e-12:
            detail = f"changed by {found:.3g}, to the nearest by {least:.3g}"
            yield Finding(near, False, detail, name)
            return
    yield Finding(started, True)
    yield Finding(near, True, f"at most {worst:.2f} times")
    detail = "shows on the calibration rows only: run the recipe again"
    yield Finding("the other codes are those that calibration rows call for", None, detail)


def _is_tried(steps: Tensor, weight: Tensor, grid: Grid) -> Tensor:
    """Which scales are one of the parts of the weight's range that calibrated methods try, bit for bit."""
    import torch

    whole = scales(weight, grid)
    if grid.paired:
        return steps == whole
    found = torch.zeros_like(steps, dtype=torch.bool)
    for number in range(NUM_RATIOS):
        found |= steps == whole * (1 - number / (2 * NUM_RATIOS))
    return found


def _not_started(piece: Piece, grid: Grid) -> str:
    """What GPTQ would not have settled so before it made up for anything."""
    width = grid.group_size or piece.weight.shape[1]
    steps = piece.rounded.scales[:, :1]
    if not _is_tried(steps, piece.weight[:, :width], grid).all():
        return "a scale of its first group is no part of the parent's range that GPTQ tries"
    codes = round_to(piece.weight[:, :1], steps, grid)
    return "" if codes.equal(piece.rounded.codes[:, :1]) else "a code of its first column differs"
