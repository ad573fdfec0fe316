"""Whether the channels that each tensor kept are those that the tensors before it kept, as far as sizes show.

The weights alone do not say which layer follows which. But whatever a layer takes in, some layer gives out: so the
rows that stay of a weight's inputs must be the outputs that stay of some layer of that size, or of several one after
another (concatenated), each a number of times (flattened) or in equal groups. A record that names other indices for the
inputs than for any outputs would feed a layer the wrong channels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from reuselib.adapter import Finding

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Weights
    from reuselib.pruning.slices import Slices

Kept = tuple[int, tuple[int, ...]]
"""A number of channels, and those of them that stay."""


def coupled(slices: Slices, parent: Weights, loose: Collection[str]) -> Iterator[Finding]:
    """What the record says of one layer's tensors, and of layers that feed each other, fits together."""
    name = next(_torn(slices, parent), "")
    claim = "all tensors of a layer keep the same outputs"
    yield Finding(claim, not name, tensor=name)
    odd = next((each for each in uncoupled(slices, parent) if each not in loose), "")
    yield Finding(
        "what each layer keeps of its inputs is what layers keep of their outputs",
        not odd,
        "other inputs than any layer of that size gives out" if odd else "",
        odd,
    )
    if loose:
        yield Finding(
            "what each layer keeps of its inputs is what layers keep of their outputs",
            None,
            f"recorded as taken apart on the way, so sizes do not show it: {len(loose)} tensors",
            min(loose),
        )


def _torn(slices: Slices, parent: Weights) -> Iterator[str]:
    """Biases and statistics that keep other channels than the weight beside them."""
    for name in parent:
        owner, _, part = name.rpartition(".")
        weight = f"{owner}.weight"
        if part == "weight" or weight not in parent or parent[name].dim() != 1:
            continue
        if parent[weight].shape[0] != parent[name].shape[0]:
            continue
        if slices.kept(name, 0) != slices.kept(weight, 0):
            yield name


def uncoupled(slices: Slices, parent: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors whose inputs that stay are no layer's outputs that stay."""
    shapes = {name: tuple(parent[name].shape) for name in parent}
    outputs = {
        (shape[0], slices.kept(name, 0) or tuple(range(shape[0])))
        for name, shape in shapes.items()
        if shape
    }
    known: dict[Kept, bool] = {}
    for name, dims in slices.tensors.items():
        for dim, key in dims.items():
            if dim == 0 or name not in shapes or dim >= len(shapes[name]):
                continue
            inputs = (shapes[name][dim], slices.keep[key])
            if inputs not in known:
                known[inputs] = _given_out(inputs, outputs)
            if not known[inputs]:
                yield name


def _given_out(inputs: Kept, outputs: Collection[Kept]) -> bool:
    """Whether some outputs, alone or one after another, are these inputs."""
    if inputs in outputs or any(_is_group(inputs, each) for each in outputs):
        return True
    size, kept = inputs
    widths = {size // each for each, _ in outputs if each and size % each == 0} | {1}
    return any(_concatenated(_unflattened(size, kept, width), outputs) for width in widths)


def _is_group(inputs: Kept, output: Kept) -> bool:
    """Whether the outputs are these inputs over again, as a grouped convolution has them."""
    size, kept = inputs
    whole, left = output
    if not size or whole % size:
        return False
    return left == tuple(at * size + each for at in range(whole // size) for each in kept)


def _unflattened(size: int, kept: tuple[int, ...], width: int) -> Kept | None:
    """The channels behind entries of which each channel has `width` that follow one another."""
    channels = kept[::width] if len(kept) % width == 0 else ()
    whole = tuple(each + offset for each in channels for offset in range(width))
    if whole != kept or any(each % width for each in channels):
        return None
    return size // width, tuple(each // width for each in channels)


def _concatenated(inputs: Kept | None, outputs: Collection[Kept]) -> bool:
    """Whether outputs of layers, one after another, are these inputs; by the places where one may end."""
    if inputs is None:
        return False
    size, kept = inputs
    ends = {0}
    for start in range(size):
        if start not in ends:
            continue
        first = bisect_left(kept, start)
        for width, left in outputs:
            if not width or start + width > size:
                continue
            here = kept[first : bisect_left(kept, start + width)]
            if len(here) == len(left) and all(
                a - start == b for a, b in zip(here, left, strict=True)
            ):
                ends.add(start + width)
    return size in ends
