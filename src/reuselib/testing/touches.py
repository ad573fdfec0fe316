"""What forgers do to one tensor: little enough that only a comparison with the parent's shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def nudged(value: Tensor) -> Tensor:
    """One weight moved by a millionth of it, or as little as its type can say."""
    import torch

    flat = value.view(-1)
    at = int(flat.abs().argmax())
    if not value.is_floating_point():
        flat[at] = flat[at] - flat[at].sign()
    elif value.dtype in (torch.bfloat16, torch.float16):
        flat[at] = torch.nextafter(flat[at], torch.zeros((), dtype=value.dtype))
    else:
        flat[at] *= 1 + 1e-6
    return value


def one_more_rank(value: Tensor) -> Tensor:
    """A matrix of rank one added."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows, columns = value.shape
    left = torch.randn(rows, 1, generator=generator)
    return value + 1e-3 * left @ torch.randn(1, columns, generator=generator)


def filled(value: Tensor) -> Tensor:
    """One zero that is none any more."""
    flat = value.view(-1)
    flat[int((flat == 0).nonzero()[0])] = 1e-3
    return value


def emptied(value: Tensor) -> Tensor:
    """One weight more that is zero."""
    flat = value.view(-1)
    flat[int((flat != 0).nonzero()[0])] = 0
    return value


def other_mask(value: Tensor) -> Tensor:
    """A zero and a weight in each other's place: as many zeros as before."""
    flat = value.view(-1)
    full, empty = int((flat != 0).nonzero()[-1]), int((flat == 0).nonzero()[0])
    flat[empty], flat[full] = flat[full].clone(), 0
    return value


def wider(dim: int) -> Callable[[Tensor], Tensor]:
    """Repeat what comes first along a dimension."""

    def widened(value: Tensor) -> Tensor:
        import torch

        return torch.cat([value, value.narrow(dim, 0, 1)], dim)

    return widened
