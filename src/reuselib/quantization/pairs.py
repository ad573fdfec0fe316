"""Quantized layers beside those of the parent that they were made of: what a proof looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.adapter import Weights
from reuselib.measure.chunks import pieces
from reuselib.quantization.packing import unpack
from reuselib.quantization.rounding import Rounded, nearest
from reuselib.quantization.schemes import Scheme

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = ("weight", "weight_scale")
PACKED = ("weight_packed", "weight_scale", "weight_shape")


@dataclass(frozen=True)
class Piece:
    """Some rows of a layer."""

    weight: Tensor
    """Of the parent, as it went into rounding: fp32 [rows, columns]."""
    rounded: Rounded


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A quantized child beside its parent."""

    parent: Weights
    child: Weights
    layers: Mapping[str, Scheme]
    """By name of each quantized linear layer."""
    tables: Sequence[Sequence[str]] = ()
    """Places that share an embedding, for each that was quantized."""
    transposed: frozenset[str] = frozenset()
    """Layers whose weight was [in, out]."""
    new: frozenset[str] = frozenset()
    """Tensors of the child that the parent's checkpoint does not hold, such as those of a new head."""
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of the parent as they were changed before rounding, where the method does that."""

    @cached_property
    def required(self) -> frozenset[str]:
        """Names of the tensors of quantized layers."""
        names = [f"{name}.{part}" for name, how in self.layers.items() for part in parts(how)]
        for places in self.tables:
            names += [f"{place}.weight_scale" for place in places]
            # a shared table is stored once, under one of its names
            held = [f"{place}.weight" for place in places if f"{place}.weight" in self.child]
            names += held or [f"{places[0]}.weight"]
        return frozenset(names)

    @property
    def rest(self) -> list[str]:
        """Tensors of the child that belong to no quantized layer and are not new."""
        return [name for name in self.child if name not in self.required | self.new]

    def weight(self, name: str) -> Tensor:
        """The parent's weight of a layer as it went into rounding: [out, in]."""
        full = f"{name}.weight"
        weight = self.prepared[full] if full in self.prepared else self.parent[full]
        return weight.T if name in self.transposed else weight

    @property
    def num_tensors(self) -> int:
        """Of the quantized linear layers."""
        return sum(len(parts(how)) for how in self.layers.values())

    def rounded(self, name: str, how: Scheme, rows: slice = slice(None)) -> Rounded:
        """A layer's weight as the child has it."""
        steps = self.child[f"{name}.weight_scale"][rows]
        if not how.packed:
            return Rounded(self.child[f"{name}.weight"][rows], steps)
        words = self.child[f"{name}.weight_packed"][rows]
        return Rounded(unpack(words, how.grid.bits, self.size(name)[1]), steps)

    def in_pieces(self, name: str, how: Scheme, *, to_nearest: bool = False) -> Iterator[Piece]:
        """A layer a few rows at a time, as the child has it or rounded to the nearest."""
        weight = self.weight(name)
        for rows in pieces(weight.shape):
            part = weight[rows].detach().float()
            rounded = nearest(part, how) if to_nearest else self.rounded(name, how, rows)
            yield Piece(part, rounded)

    def moved(self, name: str, how: Scheme, *, to_nearest: bool = False) -> float:
        """As `rounding.change`, a few rows at a time; of the layer as by `in_pieces`."""
        moved = whole = 0.0
        for piece in self.in_pieces(name, how, to_nearest=to_nearest):
            moved += float((piece.rounded.restored() - piece.weight).double().square().sum())
            whole += float(piece.weight.double().square().sum())
        return (moved / max(whole, 1e-60)) ** 0.5

    def size(self, name: str) -> tuple[int, int]:
        """Rows and columns of a layer: those of the parent's; of a table that is stored under another name, its own."""
        full = f"{name}.weight"
        rows, columns = (self.parent if full in self.parent else self.child)[full].shape
        return (columns, rows) if name in self.transposed else (rows, columns)

    def held(self, places: Sequence[str]) -> str:
        """Where the parent stores a shared table."""
        return next(place for place in places if f"{place}.weight" in self.parent)


def parts(scheme: Scheme) -> tuple[str, ...]:
    """What the tensors of a layer are called, after its name."""
    return PACKED if scheme.packed else PLAIN
