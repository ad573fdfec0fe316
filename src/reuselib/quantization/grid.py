"""The grid that weights are rounded to: signed integers, times one scale a row or a group of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A symmetric grid, as the compressed-tensors format can say it: zero stays zero, and there is no zero point."""

    bits: int
    """8 or 4."""
    group_size: int | None = None
    """How many neighbouring columns (inputs) of a row share a scale; None: the whole row."""
    paired: bool = False
    """Choose the step so that two neighbouring codes (columns 0 and 1, 2 and 3, ...) of one sign add up to 128 at most.

    The integer instruction of CPUs without VNNI, `vpmaddubsw`, adds two products of an unsigned and a signed byte in
    16 bits: 255 x 128 fits, 255 x 129 does not. On such a grid inputs keep all their 8 bits; otherwise they must make
    do with 7, which costs more than the somewhat longer step.
    """

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, got {self.bits}")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {self.group_size}")
        if self.paired and (self.bits != 8 or self.group_size is not None):
            raise ValueError("paired codes are for 8 bits and whole rows")

    @property
    def lowest(self) -> int:
        """The smallest code: -8 for 4 bits. For 8 bits -127, so that kernels may negate it."""
        return -8 if self.bits == 4 else -127

    @property
    def highest(self) -> int:
        """The largest code: 7 or 127."""
        return 7 if self.bits == 4 else 127

    @property
    def reach(self) -> float:
        """How many steps the largest magnitude lies from zero.

        For 4 bits 7.5, between the two ends of the grid: either is at most half a step away, and the step is smaller
        than with 7.
        """
        return (self.highest - self.lowest) / 2

    def num_groups(self, num_columns: int) -> int:
        """Scales in a row.

        Raises:
            ValueError: the group size does not divide the columns.
        """
        if self.group_size is None:
            return 1
        if num_columns % self.group_size:
            raise ValueError(f"group_size {self.group_size} does not divide {num_columns} columns")
        return num_columns // self.group_size


def scales(weight: Tensor, grid: Grid) -> Tensor:
    """The step of each row, or of each group in it, from its largest magnitude.

    Args:
        weight: [rows, columns], floating point.
        grid: what to round to.

    Returns:
        fp32 [rows, groups]; 1 where a group holds zeros only.

    Raises:
        ValueError: the group size does not divide the columns.
    """
    import torch

    weight = weight.detach().float()
    grouped = weight.unflatten(-1, (grid.num_groups(weight.shape[-1]), -1))
    largest = _largest_pair(weight) if grid.paired else grouped.abs().amax(dim=-1)
    step = largest / grid.reach
    # below the smallest normal number the division by a step is no longer exact to half a step
    return torch.where(step < torch.finfo(torch.float32).tiny, 1.0, step)


def round_to(weight: Tensor, scales: Tensor, grid: Grid) -> Tensor:
    """The nearest code of each weight: int8 [rows, columns]. Halves go to the even code.

    Args:
        weight: [rows, columns], floating point.
        scales: fp32 [rows, groups], as `scales` gives them.
        grid: what to round to.
    """
    import torch

    grouped = weight.detach().float().unflatten(-1, (scales.shape[-1], -1))
    codes = (grouped / scales.unsqueeze(-1)).clamp_(grid.lowest, grid.highest).round_()
    return codes.flatten(-2).to(torch.int8)


def restore(codes: Tensor, scales: Tensor) -> Tensor:
    """The weights that codes stand for: fp32 [rows, columns].

    Args:
        codes: int8 [rows, columns].
        scales: fp32 [rows, groups].
    """
    grouped = codes.to(scales.dtype).unflatten(-1, (scales.shape[-1], -1))
    return (grouped * scales.unsqueeze(-1)).flatten(-2)


def fits_pairs(codes: Tensor) -> bool:
    """Whether no two neighbouring codes of one sign add up to more than 128, see `Grid.paired`."""
    return bool((_largest_pair(codes.float()) <= 128).all())


def _largest_pair(weight: Tensor) -> Tensor:
    """The largest sum of magnitudes of two neighbours of one sign in each row: [rows, columns] to [rows, 1]."""
    import torch

    padded = torch.nn.functional.pad(weight, (0, weight.shape[-1] % 2)).unflatten(-1, (-1, 2))
    # not by sum(), which is slow along so short a dimension
    first, second = padded[..., 0], padded[..., 1]
    above = first.clamp(min=0) + second.clamp(min=0)
    below = (-first).clamp(min=0) + (-second).clamp(min=0)
    return torch.maximum(above, below).amax(dim=-1, keepdim=True)
