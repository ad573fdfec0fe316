"""Factors by which channels were divided before rounding: their record, and what weights they give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Json, Weights

FINENESS = 8
"""Factors are whole powers of two to the eighth, so that a record of small integers says them exactly."""


@dataclass(frozen=True, kw_only=True)
class Factored:
    """A layer whose outputs were divided by a factor, and those after it whose inputs were multiplied."""

    source: str
    """Name of a norm or of a linear layer."""
    targets: tuple[str, ...]
    offset: bool
    """Whether the source multiplies by 1 + weight."""
    matrices: tuple[str, ...]
    """Those of them that are linear; `transposed` are those with a weight [in, out]."""
    transposed: tuple[str, ...]
    exponents: tuple[int, ...]
    """Channel `i` was divided by `2 ** (exponents[i] / 8)`."""

    @property
    def factor(self) -> Tensor:
        """fp32 [channels]; the same bits on every machine."""
        return factor(self.exponents)

    @classmethod
    def of(cls, record: Mapping[str, Json]) -> Factored:
        """From what `reuselib.adapter.as_json` made of one."""
        values = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        return cls(**values)  # type: ignore[arg-type]

    def changes(self) -> Iterator[str]:
        """Names of the tensors that may have changed."""
        yield f"{self.source}.weight"
        yield f"{self.source}.bias"
        yield from (f"{target}.weight" for target in self.targets)

    def applied(self, name: str, tensor: Tensor) -> Tensor:
        """One of these tensors after the change, bit for bit what `folding.apply_fold` makes of it."""
        owner, _, part = name.rpartition(".")
        by = self.factor
        if part == "bias":
            return tensor / by
        if owner in self.targets:
            return tensor * (by[:, None] if owner in self.transposed else by)
        if owner in self.matrices:
            return tensor / (by if owner in self.transposed else by[:, None])
        return (tensor + 1) / by - 1 if self.offset else tensor / by


@dataclass(frozen=True)
class Prepared(Mapping[str, "Tensor"]):
    """The tensors of a network that factors changed, each computed when it is asked for."""

    weights: Weights
    """Before."""
    factored: Sequence[Factored]
    """In order."""

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise KeyError(name)
        tensor = self.weights[name]
        for each in self.factored:
            if name in each.changes():
                tensor = each.applied(name, tensor)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self.weights and any(name in each.changes() for each in self.factored)

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(name for each in self.factored for name in each.changes())
        return (name for name in names if name in self.weights)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def exponents(wanted: Tensor) -> tuple[int, ...]:
    """The record of the nearest factor that can be recorded."""
    return tuple(round(FINENESS * math.log2(each)) for each in wanted.tolist())


def factor(exponents: Sequence[int]) -> Tensor:
    """The factor that a record says: fp32 [channels]."""
    import torch

    return torch.tensor([2.0 ** (each / FINENESS) for each in exponents])
