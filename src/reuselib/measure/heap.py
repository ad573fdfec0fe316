"""Bytes as the C library sees them: what comes from the heap, and what the system is asked for block by block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGE = 2**25
"""Bytes from which the C library takes a block from the system by itself and gives it back at once (malloc(3): the
threshold for `mmap` rises up to this); smaller ones come from a heap that hardly ever shrinks."""


@dataclass(frozen=True)
class Bytes:
    """So much memory."""

    small: int = 0
    """In blocks that come from the heap."""
    large: int = 0
    """In blocks of `LARGE` and more."""

    @property
    def total(self) -> int:
        """Both."""
        return self.small + self.large

    @classmethod
    def block(cls, num_bytes: int) -> Bytes:
        """A single block."""
        return cls(0, num_bytes) if num_bytes >= LARGE else cls(num_bytes, 0)

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.small + other.small, self.large + other.large)

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(self.small - other.small, self.large - other.large)

    def __mul__(self, factor: int) -> Bytes:
        return Bytes(self.small * factor, self.large * factor)


def of_tensors(tensors: Iterable[Tensor]) -> Bytes:
    """What tensors take, those that share memory once; one that requires no memory yet counts all the same."""
    storages = {id(each): each.untyped_storage() for each in tensors}
    sizes = {storage._cdata: storage.nbytes() for storage in storages.values()}
    return sum(map(Bytes.block, sizes.values()), Bytes())


def of_module(module: nn.Module) -> Bytes:
    """What a network's weights and buffers take."""
    return of_tensors((*module.parameters(), *module.buffers()))


def of_learned(module: nn.Module) -> Bytes:
    """What the parameters take that require a gradient."""
    return of_tensors(each for each in module.parameters() if each.requires_grad)
