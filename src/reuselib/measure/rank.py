"""The rank of a difference of two stored weights, which rounding blurs.

A weight in floating point is off by up to half a unit in the last place, so the difference of two weights is a matrix
of some rank plus noise. What its singular values show above the noise is told; what lies below cannot be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MARGIN = 4.0
"""How far above the estimated noise a singular value must lie to be none. Of a random matrix none does."""
OVERSAMPLED = 8
"""Directions that are looked at beyond the claimed rank."""
ROUNDS = 2
"""Power iterations, which bring out what little stands above the noise."""


@dataclass(frozen=True)
class Spectrum:
    """What a difference shows around a claimed rank."""

    last: float
    """The singular value of the claimed rank: the last that the claim accounts for."""
    next: float
    """The one after it."""
    noise: float
    """The largest that rounding alone would give, times `MARGIN`."""


def spectrum(one: Tensor, other: Tensor, rank: int, dtype: torch.dtype) -> Spectrum:
    """Singular values of `one - other` around a rank.

    By a randomized range finder with power iterations (Halko, Martinsson and Tropp, 2011,
    https://arxiv.org/abs/0909.4061, algorithm 4.4), with a generator of its own, so equal inputs give equal values.

    Args:
        one: [rows, columns], floating point.
        other: of the same shape.
        rank: the claimed one.
        dtype: what the weights were stored in; its rounding is the noise.
    """
    import torch

    one, other = one.detach().float(), other.detach().float()
    change = one - other
    size = min(change.shape)
    noise = _noise(one, other, dtype)
    if rank >= size:
        values = torch.linalg.svdvals(change)
        return Spectrum(float(values[size - 1]), 0.0, noise)
    width = min(size, rank + OVERSAMPLED)
    generator = torch.Generator().manual_seed(0)
    basis = change @ torch.randn(change.shape[1], width, generator=generator)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(basis).Q
        basis = change @ torch.linalg.qr(change.T @ basis).Q
    basis = torch.linalg.qr(basis).Q
    values = torch.linalg.svdvals(basis.T @ change)
    return Spectrum(float(values[rank - 1]), float(values[rank]), noise)


def _noise(one: Tensor, other: Tensor, dtype: torch.dtype) -> float:
    """An upper estimate of the spectral norm of rounding errors, times `MARGIN`.

    Each entry is off by at most eps/2 of itself. Of independent entries with the root mean square s, the norm of a
    matrix [m, n] is s x (sqrt(m) + sqrt(n)) (Bai and Yin, 1988, for the limit).
    """
    import torch

    rows, columns = one.shape
    # sums of products were rounded in fp32 on the way, whatever the type is that they ended up in
    unit = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) / 2
    size = max(float(one.norm()), float(other.norm())) / (rows * columns) ** 0.5
    return MARGIN * unit * size * (rows**0.5 + columns**0.5)
