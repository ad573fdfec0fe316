"""What must hold between a network's weights and its quantized child's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reuselib.adapter import Finding
from reuselib.lineage.structure import Structure
from reuselib.measure.chunks import pieces
from reuselib.measure.claims import bit_equal, same_bits
from reuselib.quantization import closeness
from reuselib.quantization.factors import Factored
from reuselib.quantization.grid import Grid, fits_pairs
from reuselib.quantization.packing import num_words
from reuselib.quantization.pairs import Pair, parts
from reuselib.quantization.rounding import Rounded
from reuselib.quantization.schemes import ROWS, Scheme

if TYPE_CHECKING:
    import torch


def as_asked(
    record: Structure,
    factored: Sequence[Factored],
    *,
    schemes: Collection[str],
    rescales: bool,
    embeddings: bool,
) -> Finding:
    """What is recorded is what the configuration asks for; which layers a selector means, weights do not say.

    Args:
        record: of the child: `layers`, with the scheme of each, and `tables`.
        factored: what is recorded as rescaled.
        schemes: those that the configuration names.
        rescales: whether the method divides channels by factors.
        embeddings: whether the table of tokens was to be quantized.
    """
    layers, tables = record.texts("layers"), record.groups("tables")
    odd = {
        name: f"as {kind}, which the configuration does not name"
        for name, kind in layers.items()
        if kind not in schemes
    }
    scaled: set[str] = set()
    for fold in factored:
        if not rescales:
            odd[fold.source] = "rescaled, which the method does not do"
        elif not layers.keys() & set(fold.targets):
            odd[fold.source] = "rescaled for no quantized layer"
        elif scaled & set(fold.targets):
            odd[fold.source] = "rescaled for a layer that another one is rescaled for"
        scaled |= set(fold.targets)
    if not layers:
        odd[""] = "no layer is quantized"
    if bool(tables) != embeddings:
        odd[""] = f"embeddings: {len(tables)} tables"
    claim = "what is recorded as quantized is what the configuration asks for"
    name, detail = next(iter(odd.items()), ("", f"{len(layers)} layers"))
    return Finding(claim, not odd, detail, name)


def prove_layers(pair: Pair, record: Structure, *, method: str, trained: bool) -> Iterator[Finding]:
    """What holds of a child's tensors; what a claim relies on comes before it.

    Args:
        pair: the child, with its parent.
        record: of the child; GPTQ and AWQ need its `changes`.
        method: `rtn`, `gptq` or `awq`.
        trained: whether all weights were trained before they were rounded.
    """
    for first in (_known, _complete, _shaped, _on_grid):
        finding = first(pair)
        yield finding
        if not finding.holds:
            return
    if trained:
        yield from _others_trained(pair)
        return
    if method == "rtn":
        yield _replayed(pair)
    else:
        yield closeness.within(pair, record.numbers("changes"))
        if method == "awq":
            yield closeness.clipped(pair)
        else:
            yield from closeness.compensated(pair)
        yield _replayed(pair, layers=False)
    yield _others_equal(pair)


def _known(pair: Pair) -> Finding:
    """Every recorded layer and table is a matrix of the parent that the scheme can round."""
    claim = "every quantized layer is a matrix of the parent"
    name, detail = next(_unknown(pair), ("", ""))
    return Finding(claim, not name, detail or f"{len(pair.layers)} layers", name)


def _complete(pair: Pair) -> Finding:
    """Every tensor of the parent has its successor."""
    replaced = {f"{name}.weight" for name in pair.layers}
    replaced |= {f"{place}.weight" for places in pair.tables for place in places}
    wanted = pair.required | pair.new | {name for name in pair.parent if name not in replaced}
    lost = sorted(name for name in wanted if name not in pair.child)
    more = f"{len(lost)} missing" if lost[1:] else ""
    claim = "every quantized layer and every other tensor of the parent is there"
    return Finding(claim, not lost, more, next(iter(lost), ""))


def _shaped(pair: Pair) -> Finding:
    """Quantized layers have the sizes of the parent's, and the types of their format."""
    claim = "every quantized layer has the shape of the parent's"
    for name, wanted in _shapes(pair):
        found = pair.child[name]
        if (found.dtype, tuple(found.shape)) != wanted:
            return Finding(claim, False, f"{found.dtype} {tuple(found.shape)}", name)
    return Finding(claim, True)


def _on_grid(pair: Pair) -> Finding:
    """Scales are positive and finite, and codes lie on the grid."""
    claim = "every quantized weight lies on the grid of its scheme"
    held = [each for places in pair.tables for each in places if f"{each}.weight" in pair.child]
    schemes = {**pair.layers, **dict.fromkeys(held, ROWS)}
    for name, how in schemes.items():
        if how.packed and pair.child[f"{name}.weight_shape"].tolist() != [*pair.size(name)]:
            return Finding(claim, False, "the recorded shape is another", f"{name}.weight_shape")
        for rows in pieces(pair.size(name)):
            if fault := _off_grid(pair.rounded(name, how, rows), how.grid):
                return Finding(claim, False, fault, name)
    for places in pair.tables:
        for place in places:
            steps = pair.child[f"{place}.weight_scale"]
            if not (steps.isfinite() & (steps > 0)).all():
                return Finding(
                    claim, False, "a scale is not a positive number", f"{place}.weight_scale"
                )
    return Finding(claim, True, f"{len(schemes)} layers")


def _replayed(pair: Pair, layers: bool = True) -> Finding:
    """Rounding to the nearest gives the same bits again; without `layers`, of embeddings only."""
    claim = f"every quantized {'weight' if layers else 'embedding'} is the parent's, rounded to the nearest code"
    schemes = dict(pair.layers) if layers else {}
    schemes |= {pair.held(places): ROWS for places in pair.tables}
    for number, (name, how) in enumerate(schemes.items()):
        if odd := _other_than_nearest(pair, name, how):
            detail = f"differs from the replay, after {number} layers that did not"
            return Finding(claim, False, detail, odd)
    tensors = sum(len(parts(how)) for how in schemes.values())
    return Finding(claim, True, "replayed bit for bit", compared=tensors)


def _others_equal(pair: Pair) -> Finding:
    """What is not quantized is the parent's, or as prepared."""
    import torch

    claim = "every other tensor is bit-equal to the parent's"
    for name in pair.rest:
        if name in pair.prepared and not torch.equal(pair.child[name], pair.prepared[name]):
            return Finding(claim, False, "differs from what the recorded factors give", name)
    rest = [name for name in pair.rest if name not in pair.prepared]
    found = bit_equal(claim, pair.parent, pair.child, rest)
    return replace(found, compared=len(pair.rest)) if found.holds else found


def _others_trained(pair: Pair) -> Iterator[Finding]:
    """After training: shapes are the parent's, and something changed."""
    claim = "every other tensor has the parent's shape"
    odd = [
        name
        for name in pair.rest
        if name not in pair.parent or pair.parent[name].shape != pair.child[name].shape
    ]
    yield Finding(claim, not odd, "", next(iter(odd), ""))
    moved = (
        any(
            name in pair.parent and not same_bits(pair.child[name], pair.parent[name])
            for name in pair.rest
        )
        or not _replayed(pair).holds
    )
    yield Finding("training changed at least one tensor", moved)


def _unknown(pair: Pair) -> Iterator[tuple[str, str]]:
    places = [place for group in pair.tables for place in group]
    for name in {*pair.transposed} - set(pair.layers):
        yield name, "recorded as transposed, but not as quantized"
    for name in set(places) & set(pair.layers):
        yield name, "recorded both as a layer and as a table"
    for name in {name for name in places if places.count(name) > 1}:
        yield name, "recorded in two tables"
    for group in pair.tables:
        if not any(f"{place}.weight" in pair.parent for place in group):
            yield group[0], "the parent has no such table"
    held = [place for place in places if f"{place}.weight" in pair.parent]
    for name, how in {**pair.layers, **dict.fromkeys(held, ROWS)}.items():
        weight = pair.parent.get(f"{name}.weight")
        if weight is None or weight.dim() != 2 or not weight.is_floating_point():
            yield name, "the parent has no such matrix"
            continue
        columns = weight.shape[0] if name in pair.transposed else weight.shape[1]
        if columns % (how.grid.group_size or 1):
            yield name, f"{columns} columns do not fall into groups of {how.grid.group_size}"


def _shapes(pair: Pair) -> Iterator[tuple[str, tuple[torch.dtype, tuple[int, ...]]]]:
    import torch

    for name, how in pair.layers.items():
        rows, columns = pair.weight(name).shape
        yield f"{name}.weight_scale", (torch.float32, (rows, how.grid.num_groups(columns)))
        if how.packed:
            words = num_words(columns, how.grid.bits)
            yield f"{name}.weight_packed", (torch.int32, (rows, words))
            yield f"{name}.weight_shape", (torch.int64, (2,))
        else:
            yield f"{name}.weight", (torch.int8, (rows, columns))
    for places in pair.tables:
        rows, columns = pair.weight(pair.held(places)).shape
        for place in places:
            yield f"{place}.weight_scale", (torch.float32, (rows, 1))
            if f"{place}.weight" in pair.required:
                yield f"{place}.weight", (torch.int8, (rows, columns))


def _off_grid(found: Rounded, grid: Grid) -> str:
    if not (found.scales.isfinite() & (found.scales > 0)).all():
        return "a scale is not a positive number"
    least, most = int(found.codes.min()), int(found.codes.max())
    if least < grid.lowest or most > grid.highest:
        return f"codes from {least} to {most}"
    if grid.paired and not fits_pairs(found.codes):
        return "two neighbouring codes add up to more than 128"
    return ""


def _other_than_nearest(pair: Pair, name: str, how: Scheme) -> str:
    """The first tensor of a layer or table that rounding to the nearest does not give."""
    shared = next((group for group in pair.tables if name in group), (name,))
    for piece, rows in zip(
        pair.in_pieces(name, how, to_nearest=True), pieces(pair.size(name)), strict=True
    ):
        for part, tensor in piece.rounded.tensors(how).items():
            if part == "weight_shape":
                continue  # compared on the grid
            for place in shared:
                full = f"{place}.{part}"
                if full in pair.required and not same_bits(pair.child[full][rows], tensor):
                    return full
    return ""
