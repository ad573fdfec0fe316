"""Factors by which channels were divided before rounding: their record, and what weights they give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.adapter import Finding
from reuselib.lineage.structure import Structure, malformed

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Json, Weights

LARGEST = 512
"""Exponents beyond it, factors of 2**64, are no record of ours."""
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
    def of(cls, record: Json) -> Factored:
        """From what `reuselib.adapter.as_json` made of one.

        Raises:
            IntegrityError: `BAD_STRUCTURE`, it is no such record.
        """
        keys = ("source", "targets", "offset", "matrices", "transposed", "exponents")
        fields = Structure.read(record, keys, where="factored")
        found = cls(
            source=fields.text("source"),
            targets=fields.names("targets"),
            offset=fields.flag("offset"),
            matrices=fields.names("matrices"),
            transposed=fields.names("transposed"),
            exponents=tuple(_exponent(each) for each in fields.items("exponents")),
        )
        names = {found.source, *found.targets}
        if not {*found.transposed} <= {*found.matrices} <= names:
            raise malformed(f"factored: {found.source} is scaled for layers that are not named")
        if found.source in found.targets or not {*found.targets} <= {*found.matrices}:
            raise malformed(
                f"factored: {found.source} is scaled for what is no linear layer after it"
            )
        return found

    def misfit(self, weights: Weights) -> str:
        """Why these factors cannot be for these weights; nothing if they can."""
        if not _one_block(self.source, *self.targets):
            return "is rescaled for a layer of another block"
        for name in (self.source, *self.targets):
            full = f"{name}.weight"
            if full not in weights:
                return f"the parent has no {full}"
            shape = weights[full].shape
            inner = (name == self.source) == (name in self.transposed)
            if len(shape) != (2 if name in self.matrices else 1):
                return f"{full} has shape {tuple(shape)}"
            channels = shape[1] if len(shape) == 2 and inner else shape[0]
            if channels != len(self.exponents):
                return f"{len(self.exponents)} factors for {channels} channels of {full}"
        bias = f"{self.source}.bias"
        if bias in weights and tuple(weights[bias].shape) != (len(self.exponents),):
            return f"{bias} has another size"
        return ""

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


def fitting(factored: Sequence[Factored], parent: Weights) -> Iterator[Finding]:
    """What can be said of recorded factors without running the network."""
    misfit = next(((f.source, why) for f in factored if (why := f.misfit(parent))), ("", ""))
    claim = "what is rescaled and what makes up for it are in one block, with as many channels"
    yield Finding(claim, not misfit[0], misfit[1], misfit[0])
    yield Finding(
        "nothing else reads what a rescaled layer gives out",
        None,
        "shows when the network runs; it was tried before it was recorded",
    )


def _exponent(value: Json) -> int:
    if type(value) is not int or abs(value) > LARGEST:
        raise malformed(
            f"factored.exponents must be whole numbers up to {LARGEST}, got {value!r:.40}"
        )
    return value


def _one_block(*names: str) -> bool:
    """Whether names lie in one block: that is where folds are looked for. Names without numbers do not say."""
    blocks = {block for name in names if (block := _block(name))}
    return len(blocks) < 2


def _block(name: str) -> str:
    """`layers.3` of `layers.3.mlp.up`; nothing if no part of the name is a number."""
    parts = name.split(".")
    at = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
    return "" if at is None else ".".join(parts[: at + 1])


def exponents(wanted: Tensor) -> tuple[int, ...]:
    """The record of the nearest factor that can be recorded."""
    return tuple(round(FINENESS * math.log2(each)) for each in wanted.tolist())


def factor(exponents: Sequence[int]) -> Tensor:
    """The factor that a record says: fp32 [channels]."""
    import torch

    return torch.tensor([2.0 ** (each / FINENESS) for each in exponents])
