"""What must hold between a network's weights and its quantized child's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Weights
from reuselib.measure.claims import bit_equal, same_bits, same_shapes
from reuselib.quantization.grid import fits_pairs
from reuselib.quantization.packing import num_words, unpack
from reuselib.quantization.rounding import Rounded, nearest
from reuselib.quantization.schemes import ROWS, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PLAIN = ("weight", "weight_scale")
PACKED = ("weight_packed", "weight_scale", "weight_shape")


@dataclass(frozen=True, kw_only=True)
class Case:
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
        names = [f"{name}.{part}" for name, how in self.layers.items() for part in _parts(how)]
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

    # Claims.

    def complete(self) -> Finding:
        """Every tensor of the parent has its successor."""
        replaced = {f"{name}.weight" for name in self.layers}
        replaced |= {f"{place}.weight" for places in self.tables for place in places}
        wanted = self.required | self.new | {name for name in self.parent if name not in replaced}
        lost = sorted(name for name in wanted if name not in self.child)
        more = f"{len(lost)} missing" if lost[1:] else ""
        claim = "every quantized layer and every other tensor of the parent is there"
        return Finding(claim, not lost, more, next(iter(lost), ""))

    def shaped(self) -> Finding:
        """Quantized layers have the sizes of the parent's, and the types of their format."""
        claim = "every quantized layer has the shape of the parent's"
        for name, wanted in self._shapes():
            found = self.child[name]
            if (found.dtype, tuple(found.shape)) != wanted:
                return Finding(claim, False, f"{found.dtype} {tuple(found.shape)}", name)
        return Finding(claim, True)

    def replayed(self, layers: bool = True) -> Finding:
        """Rounding to the nearest gives the same bits again; without `layers`, of embeddings only."""
        claim = f"every quantized {'weight' if layers else 'embedding'} is the parent's, rounded to the nearest code"
        for number, (name, tensor) in enumerate(self._expected(layers)):
            if name not in self.child or not same_bits(self.child[name], tensor):
                return Finding(
                    claim, False, f"differs from the replay, after {number} that did not", name
                )
        return Finding(claim, True, "replayed bit for bit")

    def within(self, bounds: Mapping[str, float]) -> Finding:
        """No layer is further from the parent's than recorded: the norm of the change, relative to the weight's."""
        claim = "every quantized weight is as close to the parent's as recorded"
        worst = 0.0
        for name, how in self.layers.items():
            if name not in bounds:
                return Finding(claim, False, "there is no bound for it", name)
            found = change(self.weight(name), self.rounded(name, how))
            worst = max(worst, found)
            # not exactly the recorded figure: sums depend on how many threads add them up
            if not found <= bounds[name] * (1 + 1e-4):
                return Finding(
                    claim, False, f"changed by {found:.4g}, recorded {bounds[name]:.4g}", name
                )
        return Finding(claim, True, f"at most {worst:.4g} of a weight's norm")

    def on_grid(self) -> Finding:
        """Scales are positive and finite, and codes lie on the grid."""
        claim = "every quantized weight lies on the grid of its scheme"
        held = [each for places in self.tables for each in places if f"{each}.weight" in self.child]
        schemes = {**self.layers, **dict.fromkeys(held, ROWS)}
        for name, how in schemes.items():
            found = self.rounded(name, how)
            if not (found.scales.isfinite() & (found.scales > 0)).all():
                return Finding(
                    claim, False, "a scale is not a positive number", f"{name}.weight_scale"
                )
            if how.packed and self.child[f"{name}.weight_shape"].tolist() != [*found.codes.shape]:
                return Finding(
                    claim, False, "the recorded shape is another", f"{name}.weight_shape"
                )
            least, most = int(found.codes.min()), int(found.codes.max())
            if least < how.grid.lowest or most > how.grid.highest:
                return Finding(claim, False, f"codes from {least} to {most}", name)
            if how.grid.paired and not fits_pairs(found.codes):
                return Finding(claim, False, "two neighbouring codes add up to more than 128", name)
        return Finding(claim, True, f"{len(schemes)} layers")

    def others_equal(self) -> Finding:
        """What is not quantized is the parent's, or as prepared."""
        import torch

        claim = "every other tensor is bit-equal to the parent's"
        for name in self.rest:
            if name in self.prepared and not torch.equal(self.child[name], self.prepared[name]):
                return Finding(claim, False, "differs from what the recorded factors give", name)
        rest = [name for name in self.rest if name not in self.prepared]
        return bit_equal(claim, self.parent, self.child, rest)

    def others_trained(self) -> Iterator[Finding]:
        """After training: shapes are the parent's, and something changed."""
        claim = "every other tensor has the parent's shape"
        odd = [
            name
            for name in self.rest
            if name not in self.parent or self.parent[name].shape != self.child[name].shape
        ]
        yield Finding(claim, not odd, "", next(iter(odd), ""))
        moved = (
            any(
                name in self.parent and not same_bits(self.child[name], self.parent[name])
                for name in self.rest
            )
            or not self.replayed().holds
        )
        yield Finding("training changed at least one tensor", moved)

    def rounded(self, name: str, how: Scheme) -> Rounded:
        """A layer's weight as the child has it."""
        steps = self.child[f"{name}.weight_scale"]
        if not how.packed:
            return Rounded(self.child[f"{name}.weight"], steps)
        columns = self.weight(name).shape[1]
        words = self.child[f"{name}.weight_packed"]
        return Rounded(unpack(words, how.grid.bits, columns), steps)

    def _shapes(self) -> Iterator[tuple[str, tuple[torch.dtype, tuple[int, ...]]]]:
        import torch

        for name, how in self.layers.items():
            rows, columns = self.weight(name).shape
            yield f"{name}.weight_scale", (torch.float32, (rows, how.grid.num_groups(columns)))
            if how.packed:
                words = num_words(columns, how.grid.bits)
                yield f"{name}.weight_packed", (torch.int32, (rows, words))
                yield f"{name}.weight_shape", (torch.int64, (2,))
            else:
                yield f"{name}.weight", (torch.int8, (rows, columns))
        for places in self.tables:
            rows, columns = self.weight(self._held(places)).shape
            for place in places:
                yield f"{place}.weight_scale", (torch.float32, (rows, 1))
                if f"{place}.weight" in self.required:
                    yield f"{place}.weight", (torch.int8, (rows, columns))

    def _held(self, places: Sequence[str]) -> str:
        """Where the parent stores a shared table."""
        return next(place for place in places if f"{place}.weight" in self.parent)

    def _expected(self, layers: bool) -> Iterator[tuple[str, Tensor]]:
        for name, how in self.layers.items() if layers else ():
            for part, tensor in nearest(self.weight(name), how).tensors(how).items():
                yield f"{name}.{part}", tensor
        for places in self.tables:
            parts = nearest(self.weight(self._held(places)), ROWS).tensors(ROWS)
            for place in places:
                yield f"{place}.weight_scale", parts["weight_scale"]
                if f"{place}.weight" in self.required:
                    yield f"{place}.weight", parts["weight"]


def change(weight: Tensor, rounded: Rounded) -> float:
    """How far a rounded weight is from the weight: the norm of the difference, relative to that of the weight."""
    dense = weight.detach().float()
    return float((rounded.restored() - dense).norm() / dense.norm().clamp_min(1e-30))


def _parts(scheme: Scheme) -> tuple[str, ...]:
    return PACKED if scheme.packed else PLAIN


def prove_half(
    parent: Weights, child: Weights, dtype: str, new: Collection[str]
) -> Iterator[Finding]:
    """Every floating-point tensor is the parent's, cast; but for those in `new`, which the parent does not hold."""
    import torch

    narrow = getattr(torch, dtype)
    whole = same_shapes(parent, child, new, dtypes=False)
    yield whole
    if not whole.holds:
        return
    claim = f"every tensor is the parent's, cast to {dtype}"
    for name in child:
        if name in new:
            continue
        wanted = parent[name]
        wanted = wanted.to(narrow) if wanted.is_floating_point() else wanted
        if not same_bits(child[name], wanted):
            yield Finding(claim, False, "differs", name)
            return
    yield Finding(claim, True, f"{len(child)} tensors compared")
