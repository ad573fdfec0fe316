"""Layers that lost single weights, before and after: what a proof looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.adapter import Weights
from reuselib.measure.chunks import pieces
from reuselib.measure.claims import same_bits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """The layers that lost weights, before and after."""

    parent: Weights
    child: Weights
    zeros: Mapping[str, int]
    """By name, how many are recorded."""
    transposed: frozenset[str]
    """Names of weights that are [in, out]."""

    @cached_property
    def present(self) -> list[str]:
        """Those that both hold as floating-point matrices of one shape."""
        return [name for name in self.zeros if self._is_matrix(name)]

    def _is_matrix(self, name: str) -> bool:
        if name not in self.child or name not in self.parent:
            return False
        own, other = self.child[name], self.parent[name]
        dims = own.dim() == 2 if name in self.transposed else own.dim() >= 2
        return dims and own.is_floating_point() and own.shape == other.shape

    def matrix(self, weights: Weights, name: str) -> Tensor:
        """A weight as [out, in]."""
        return out_by_in(weights[name], transposed=name in self.transposed)

    def filled(self) -> Iterator[tuple[str, str]]:
        """Zeros of the parent that are none in the child."""
        for name in self.present:
            before, after = self.parent[name], self.child[name]
            number = sum(
                int(((before[rows] == 0) & (after[rows] != 0)).sum())
                for rows in pieces(before.shape)
            )
            if number:
                yield name, f"{number} of the parent's zeros are none here"

    def moved(self, inputs: slice = slice(None)) -> Iterator[tuple[str, str]]:
        """Weights of those inputs that are neither zero nor the parent's."""
        for name in self.present:
            after, before = self.matrix(self.child, name), self.matrix(self.parent, name)
            after, before = after[:, inputs], before[:, inputs]
            for rows in pieces(after.shape):
                kept = before[rows].masked_fill(after[rows] == 0, 0.0)
                if not same_bits(after[rows], kept):
                    yield name, "a weight differs from the parent's"
                    break


def out_by_in(weight: Tensor, *, transposed: bool) -> Tensor:
    """A weight as a view [out, in]; of a convolution `in` is channels x height x width of its kernel."""
    return weight.detach().T if transposed else weight.detach().flatten(1)


def num_zeros_of(weight: Tensor) -> int:
    """How many entries of a tensor are zero."""
    return sum(int((weight[rows] == 0).sum()) for rows in pieces(weight.shape))
