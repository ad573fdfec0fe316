"""What must hold between a network's weights and its quantized child's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Weights
from reuselib.measure.chunks import pieces
from reuselib.measure.claims import bit_equal, same_bits, same_shapes
from reuselib.quantization.gptq import NUM_RATIOS
from reuselib.quantization.grid import Grid, fits_pairs, round_to, scales
from reuselib.quantization.packing import num_words, unpack
from reuselib.quantization.rounding import Rounded
from reuselib.quantization.rounding import nearest as to_nearest
from reuselib.quantization.schemes import ROWS, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PLAIN = ("weight", "weight_scale")
FARTHEST = 8.0
"""By how much GPTQ's change of a weight, which makes up for errors of the outputs, may exceed that of rounding to the
nearest; on MiniLM it is 1.9 times as large. Another model's weights are off by their whole norm."""
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

    def known(self) -> Finding:
        """Every recorded layer and table is a matrix of the parent that the scheme can round."""
        claim = "every quantized layer is a matrix of the parent"
        name, detail = next(self._unknown(), ("", ""))
        return Finding(claim, not name, detail or f"{len(self.layers)} layers", name)

    def _unknown(self) -> Iterator[tuple[str, str]]:
        places = [place for group in self.tables for place in group]
        for name in {*self.transposed} - set(self.layers):
            yield name, "recorded as transposed, but not as quantized"
        for name in set(places) & set(self.layers):
            yield name, "recorded both as a layer and as a table"
        for name in {name for name in places if places.count(name) > 1}:
            yield name, "recorded in two tables"
        for group in self.tables:
            if not any(f"{place}.weight" in self.parent for place in group):
                yield group[0], "the parent has no such table"
        held = [place for place in places if f"{place}.weight" in self.parent]
        for name, how in {**self.layers, **dict.fromkeys(held, ROWS)}.items():
            weight = self.parent.get(f"{name}.weight")
            if weight is None or weight.dim() != 2 or not weight.is_floating_point():
                yield name, "the parent has no such matrix"
                continue
            columns = weight.shape[0] if name in self.transposed else weight.shape[1]
            if columns % (how.grid.group_size or 1):
                yield name, f"{columns} columns do not fall into groups of {how.grid.group_size}"

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
        schemes = dict(self.layers) if layers else {}
        schemes |= {self._held(places): ROWS for places in self.tables}
        for number, (name, how) in enumerate(schemes.items()):
            if odd := self._other_than_nearest(name, how):
                detail = f"differs from the replay, after {number} layers that did not"
                return Finding(claim, False, detail, odd)
        tensors = sum(len(_parts(how)) for how in schemes.values())
        return Finding(claim, True, "replayed bit for bit", compared=tensors)

    def within(self, bounds: Mapping[str, float]) -> Finding:
        """No layer is further from the parent's than recorded: the norm of the change, relative to the weight's."""
        claim = "every quantized weight is as close to the parent's as recorded"
        worst = 0.0
        for name, how in self.layers.items():
            if name not in bounds:
                return Finding(claim, False, "there is no bound for it", name)
            found = _relative(self._pieces(name, how))
            worst = max(worst, found)
            # not exactly the recorded figure: sums depend on how many threads add them up
            if not found <= bounds[name] * (1 + 1e-4):
                return Finding(
                    claim, False, f"changed by {found:.4g}, recorded {bounds[name]:.4g}", name
                )
        tensors = sum(len(_parts(how)) for how in self.layers.values())
        return Finding(claim, True, f"at most {worst:.4g} of a weight's norm", compared=tensors)

    def clipped(self) -> Finding:
        """AWQ: each scale is one that it tries, and each code the nearest with that scale."""
        claim = "every scale is a part of the parent's range that AWQ tries, every code the nearest"
        for name, how in self.layers.items():
            for piece in self._pieces(name, how):
                if not _is_tried(piece.rounded.scales, piece.weight, how.grid).all():
                    return Finding(claim, False, "a scale is none of them", f"{name}.weight_scale")
                codes = round_to(piece.weight, piece.rounded.scales, how.grid)
                if not codes.equal(piece.rounded.codes):
                    return Finding(claim, False, "a code is not the nearest", name)
        return Finding(claim, True, "replayed bit for bit but for the choice of the scale")

    def compensated(self) -> Iterator[Finding]:
        """GPTQ: what it settles before it makes up for anything is the parent's; the rest is near that."""
        started = "what GPTQ settles first, scales and the first column, is the parent's, rounded"
        near = f"no weight changed by more than {FARTHEST:g} times what rounding to the nearest would change"
        worst = 0.0
        for name, how in self.layers.items():
            faults = (_not_started(piece, how.grid) for piece in self._pieces(name, how))
            if odd := next((fault for fault in faults if fault), ""):
                yield Finding(started, False, odd, name)
                return
            least = _relative(self._pieces(name, how, nearest=True))
            found = _relative(self._pieces(name, how))
            worst = max(worst, found / max(least, 1e-30))
            if not found <= FARTHEST * least + 1e-12:
                detail = f"changed by {found:.3g}, to the nearest by {least:.3g}"
                yield Finding(near, False, detail, name)
                return
        yield Finding(started, True)
        yield Finding(near, True, f"at most {worst:.2f} times")
        detail = "shows on the calibration rows only: run the recipe again"
        yield Finding("the other codes are those that calibration rows call for", None, detail)

    def on_grid(self) -> Finding:
        """Scales are positive and finite, and codes lie on the grid."""
        claim = "every quantized weight lies on the grid of its scheme"
        held = [each for places in self.tables for each in places if f"{each}.weight" in self.child]
        schemes = {**self.layers, **dict.fromkeys(held, ROWS)}
        for name, how in schemes.items():
            if how.packed and self.child[f"{name}.weight_shape"].tolist() != [*self._size(name)]:
                return Finding(
                    claim, False, "the recorded shape is another", f"{name}.weight_shape"
                )
            for rows in pieces(self._size(name)):
                if fault := _off_grid(self.rounded(name, how, rows), how.grid):
                    return Finding(claim, False, fault, name)
        for places in self.tables:
            for place in places:
                steps = self.child[f"{place}.weight_scale"]
                if not (steps.isfinite() & (steps > 0)).all():
                    return Finding(
                        claim, False, "a scale is not a positive number", f"{place}.weight_scale"
                    )
        return Finding(claim, True, f"{len(schemes)} layers")

    def others_equal(self) -> Finding:
        """What is not quantized is the parent's, or as prepared."""
        import torch

        claim = "every other tensor is bit-equal to the parent's"
        for name in self.rest:
            if name in self.prepared and not torch.equal(self.child[name], self.prepared[name]):
                return Finding(claim, False, "differs from what the recorded factors give", name)
        rest = [name for name in self.rest if name not in self.prepared]
        found = bit_equal(claim, self.parent, self.child, rest)
        return replace(found, compared=len(self.rest)) if found.holds else found

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

    def rounded(self, name: str, how: Scheme, rows: slice = slice(None)) -> Rounded:
        """A layer's weight as the child has it."""
        steps = self.child[f"{name}.weight_scale"][rows]
        if not how.packed:
            return Rounded(self.child[f"{name}.weight"][rows], steps)
        words = self.child[f"{name}.weight_packed"][rows]
        return Rounded(unpack(words, how.grid.bits, self._size(name)[1]), steps)

    def _pieces(self, name: str, how: Scheme, *, nearest: bool = False) -> Iterator[_Piece]:
        """A layer a few rows at a time, as the child has it or (`nearest`) rounded to the nearest."""
        weight = self.weight(name)
        for rows in pieces(weight.shape):
            part = weight[rows].detach().float()
            rounded = to_nearest(part, how) if nearest else self.rounded(name, how, rows)
            yield _Piece(part, rounded)

    def _size(self, name: str) -> tuple[int, int]:
        """Rows and columns of a layer: those of the parent's; of a table that is stored under another name, its own."""
        full = f"{name}.weight"
        rows, columns = (self.parent if full in self.parent else self.child)[full].shape
        return (columns, rows) if name in self.transposed else (rows, columns)

    def _other_than_nearest(self, name: str, how: Scheme) -> str:
        """The first tensor of a layer or table that rounding to the nearest does not give."""
        shared = next((group for group in self.tables if name in group), (name,))
        for piece, rows in zip(
            self._pieces(name, how, nearest=True), pieces(self._size(name)), strict=True
        ):
            for part, tensor in piece.rounded.tensors(how).items():
                if part == "weight_shape":
                    continue  # compared on the grid
                for place in shared:
                    full = f"{place}.{part}"
                    if full in self.required and not same_bits(self.child[full][rows], tensor):
                        return full
        return ""

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


@dataclass(frozen=True)
class _Piece:
    """Some rows of a layer."""

    weight: Tensor
    """Of the parent, as it went into rounding: fp32 [rows, columns]."""
    rounded: Rounded


def change(weight: Tensor, rounded: Rounded) -> float:
    """How far a rounded weight is from the weight: the norm of the difference, relative to that of the weight."""
    dense = weight.detach().float()
    return float((rounded.restored() - dense).norm() / dense.norm().clamp_min(1e-30))


def _relative(layer: Iterable[_Piece]) -> float:
    """As `change`, a few rows at a time."""
    moved = whole = 0.0
    for piece in layer:
        moved += float((piece.rounded.restored() - piece.weight).double().square().sum())
        whole += float(piece.weight.double().square().sum())
    return (moved / max(whole, 1e-60)) ** 0.5


def _is_tried(steps: Tensor, weight: Tensor, grid: Grid) -> Tensor:
    """Which scales are one of the parts of the weight's range that calibrated methods try, bit for bit."""
    import torch

    whole = scales(weight, grid)
    if grid.paired:
        return steps == whole
    found = torch.zeros_like(steps, dtype=torch.bool)
    for number in range(NUM_RATIOS):
        found |= steps == whole * (1 - number / (2 * NUM_RATIOS))
    return found


def _not_started(piece: _Piece, grid: Grid) -> str:
    """What GPTQ would not have settled so before it made up for anything."""
    width = grid.group_size or piece.weight.shape[1]
    steps = piece.rounded.scales[:, :1]
    if not _is_tried(steps, piece.weight[:, :width], grid).all():
        return "a scale of its first group is no part of the parent's range that GPTQ tries"
    codes = round_to(piece.weight[:, :1], steps, grid)
    return "" if codes.equal(piece.rounded.codes[:, :1]) else "a code of its first column differs"


def _off_grid(found: Rounded, grid: Grid) -> str:
    if not (found.scales.isfinite() & (found.scales > 0)).all():
        return "a scale is not a positive number"
    least, most = int(found.codes.min()), int(found.codes.max())
    if least < grid.lowest or most > grid.highest:
        return f"codes from {least} to {most}"
    if grid.paired and not fits_pairs(found.codes):
        return "two neighbouring codes add up to more than 128"
    return ""


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
            if child[name].is_floating_point() and child[name].dtype != narrow:
                yield Finding(claim, False, f"stored as {child[name].dtype}", name)
                return
            continue
        wanted = parent[name]
        wanted = wanted.to(narrow) if wanted.is_floating_point() else wanted
        if not same_bits(child[name], wanted):
            yield Finding(claim, False, "differs", name)
            return
    number = sum(name not in new for name in child)
    yield Finding(claim, True, f"{number} tensors compared", compared=number)
