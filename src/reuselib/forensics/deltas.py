"""How two tensors of one shape differ, in bounded memory: sums over slices, and the rank of the change by a sketch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SLICE = 1 << 20
"""Elements that are looked at together, in fp64."""
MAX_RANK = 64
"""Up to which the rank of a change is told; beyond it is only known to be higher."""
_OVERSAMPLING = 8
_MARGIN = 8
"""Times the noise of one rounding: a merged update is itself a sum of rounded products."""
_EPSILON = {"F64": 2**-52, "F32": 2**-23, "F16": 2**-10, "BF16": 2**-7}
"""Distance from 1 to the next number, by type as safetensors writes it."""


@dataclass(frozen=True)
class Delta:
    """Two tensors beside each other. Figures are not finite where the tensors are not."""

    num: int
    """Elements."""
    l2: float
    """Euclidean norm of the difference."""
    norms: tuple[float, float]
    """Euclidean norms of the two."""
    relative_l2: float
    """That over the norm of the first; infinite if that is zero."""
    max_abs: float
    cosine: float
    """Of the angle between the two; 0 if one is zero."""
    zeros: tuple[int, int]
    """Elements that are zero, in each."""
    lost: int
    """Elements that are zero in the second only."""
    gained: int
    """Elements that are zero in the first only."""
    same: int
    """Elements that are equal and not zero."""
    smallest_lost: bool
    """Whether no weight of the first that became zero is larger than one that did not."""


@dataclass(frozen=True)
class Rank:
    """Of the change of a matrix."""

    value: int | None
    """None if it is higher than is looked for, or drowned in rounding."""
    note: str = ""


def delta(one: Tensor, other: Tensor) -> Delta:
    """Compare two tensors of one shape, slice by slice."""
    import torch

    sums = torch.zeros(4, dtype=torch.float64)
    counts = [0, 0, 0, 0, 0]
    largest = largest_lost = 0.0
    smallest_kept = math.inf
    for x, y in _slices(one, other):
        gap = y - x
        sums += torch.stack([gap.square().sum(), x.square().sum(), y.square().sum(), (x * y).sum()])
        largest = max(largest, _nan_as_inf(gap.abs().max()))
        no_x, no_y = x == 0, y == 0
        lost = no_y & ~no_x
        masks = (no_x, no_y, lost, no_x & ~no_y, (x == y) & ~no_x)
        counts = [count + int(mask.sum()) for count, mask in zip(counts, masks, strict=True)]
        if lost.any():
            largest_lost = max(largest_lost, float(x[lost].abs().max()))
        if (kept := ~no_x & ~no_y).any():
            smallest_kept = min(smallest_kept, float(x[kept].abs().min()))
    gap, mine, theirs, product = (float(each) for each in sums)
    return Delta(
        num=one.numel(),
        l2=math.sqrt(gap) if gap >= 0 else gap,
        norms=(math.sqrt(mine), math.sqrt(theirs)),
        relative_l2=math.sqrt(gap / mine) if mine else (math.inf if gap else 0.0),
        max_abs=largest,
        cosine=product / math.sqrt(mine * theirs) if mine * theirs else float(mine == theirs == 0),
        zeros=(counts[0], counts[1]),
        lost=counts[2],
        gained=counts[3],
        same=counts[4],
        smallest_lost=counts[2] > 0 and largest_lost <= smallest_kept,
    )


def rank_of_change(one: Tensor, other: Tensor, dtypes: tuple[str, str]) -> Rank:
    """The numerical rank of `other - one`, matrices of one shape.

    A random projection finds the range of the change (Halko, Martinsson and Tropp, 2011), so that the change itself is
    never held as a whole. A singular value counts if it is larger than what rounding to the stored type alone makes:
    independent errors of standard deviation `s` in an m x n matrix have a spectral norm of about
    `s (sqrt(m) + sqrt(n))`.

    Args:
        one: [rows, columns].
        other: likewise.
        dtypes: as which they are stored; the coarser one sets the noise.
    """
    import torch

    rows, columns = one.shape
    width = min(MAX_RANK + _OVERSAMPLING, rows, columns)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(columns, width, generator=generator, dtype=torch.float64)
    height = max(1, _SLICE // max(columns, 1))
    spans = [slice(start, start + height) for start in range(0, rows, height)]
    square = max(
        sum(float(_double(each[span]).square().sum()) for span in spans) for each in (one, other)
    )
    sketch = torch.cat([(_double(other[span]) - _double(one[span])) @ probe for span in spans])
    if not torch.isfinite(sketch).all():
        return Rank(None, "not finite")
    basis = torch.linalg.qr(sketch).Q
    small = sum(basis[span].T @ (_double(other[span]) - _double(one[span])) for span in spans)
    values = torch.linalg.svdvals(small)
    epsilon = max(_EPSILON.get(dtype, 2**-23) for dtype in dtypes)
    deviation = epsilon * math.sqrt(square / (rows * columns) / 12)
    noise = _MARGIN * deviation * (math.sqrt(rows) + math.sqrt(columns))
    found = int((values > noise).sum())
    if found == 0:
        return Rank(None, "the change is within rounding")
    if found >= min(rows, columns):
        return Rank(found, "full")
    if found > MAX_RANK or found == width:
        return Rank(None, f"more than {MAX_RANK}")
    return Rank(found)


def steps_apart(one: Tensor, codes: Tensor, scales: Tensor) -> float:
    """The largest distance between a matrix and restored codes, in steps of their grid.

    Rounding to the nearest code gives at most 0.5, but for what is clipped; methods that weigh errors, such as GPTQ,
    give more.

    Args:
        one: [rows, columns].
        codes: restored, likewise.
        scales: [rows, groups].
    """
    rows, columns = one.shape
    height = max(1, _SLICE // max(columns, 1))
    worst = 0.0
    for start in range(0, rows, height):
        span = slice(start, start + height)
        gap = (_double(one[span]) - _double(codes[span])).abs()
        groups = gap.unflatten(-1, (scales.shape[-1], -1))
        worst = max(worst, _nan_as_inf((groups / _double(scales[span]).unsqueeze(-1)).max()))
    return worst


def _slices(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = one.reshape(-1), other.reshape(-1)
    for start in range(0, x.numel(), _SLICE):
        yield _double(x[start : start + _SLICE]), _double(y[start : start + _SLICE])


def _double(tensor: Tensor) -> Tensor:
    import torch

    return tensor.to(torch.float64)


def _nan_as_inf(value: Tensor) -> float:
    number = float(value)
    return math.inf if math.isnan(number) else number


def is_cast(one: Tensor, other: Tensor) -> bool:
    """Whether the shorter of two floating-point types holds exactly what rounding the longer one gives."""
    if not (one.is_floating_point() and other.is_floating_point()):
        return False
    long, short = (one, other) if one.dtype.itemsize >= other.dtype.itemsize else (other, one)
    x, y = long.reshape(-1), short.reshape(-1)
    return all(
        bool((x[at : at + _SLICE].to(y.dtype) == y[at : at + _SLICE]).all())
        for at in range(0, x.numel(), _SLICE)
    )
