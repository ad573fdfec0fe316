"""How the blocks of a network hang together: which inputs of a block come from blocks before it.

Found by watching one forward pass, so that no table of model families is needed: an input that is the very tensor
that an earlier block took or gave is known without running anything else; any other was computed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

NUM_ROWS = 2
"""Rows of a batch that are enough to see the wiring."""


class Wire(NamedTuple):
    """A tensor that a block takes or gives, by the place where it is first seen."""

    block: int
    """Index among the links."""
    side: str
    """`in` or `out`."""
    number: int


@dataclass(frozen=True)
class Link:
    """One block, in the order of the calls."""

    block: str
    """Name of the module."""
    call: Any
    """Its positional and named arguments, `(args, kwargs)`, with a `Wire` in the place of each tensor."""
    fresh: bool
    """Whether an argument can only be had by running the network up to this block."""
    overwrites: bool
    """Whether the block changes an argument in place."""


def wiring(
    run: Callable[[Mapping[str, Tensor]], object],
    module: nn.Module,
    blocks: Sequence[str],
    batches: Sequence[Mapping[str, Tensor]],
) -> tuple[Link, ...]:
    """The blocks in the order in which they are called.

    Args:
        run: takes a batch through the network.
        module: the network, in evaluation mode.
        blocks: names of its blocks, none inside another.
        batches: the first and the last are tried: what differs between them cannot be carried from block to block.

    Returns:
        One link for each block that is called. None at all if a block is called twice in one pass, because a change
        to it would then reach back.
    """
    links = _watch(run, module, blocks, batches[0])
    others = _watch(run, module, blocks, batches[-1])
    names = [link.block for link in links]
    if len(set(names)) < len(names) or names != [link.block for link in others]:
        return ()
    return tuple(
        replace(link, fresh=link.fresh or link.call != other.call)
        for link, other in zip(links, others, strict=True)
    )


def last_uses(links: Sequence[Link]) -> dict[Wire, int]:
    """For each tensor that a later block is fed with from memory: the index of the last such block."""
    return {
        wire: index
        for index, link in enumerate(links)
        if not link.fresh
        for wire in leaves(link.call, Wire)
    }


def mapped(value: Any, kind: type, change: Callable[[Any], object]) -> Any:
    """A nested value of tuples, lists and dicts with every `kind` in it changed."""
    if isinstance(value, kind):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(mapped(each, kind, change) for each in value)
    if type(value) is dict:
        return {key: mapped(each, kind, change) for key, each in value.items()}
    return value


def leaves(value: Any, kind: type) -> Iterator[Any]:
    """Every `kind` in a nested value, in order; outputs of transformers are looked into as well."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from leaves(each, kind)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from leaves(each, kind)


def _watch(
    run: Callable[[Mapping[str, Tensor]], object],
    module: nn.Module,
    blocks: Sequence[str],
    batch: Mapping[str, Tensor],
) -> list[Link]:
    watcher = _Watcher()
    handles = [
        handle for name in blocks for handle in watcher.hooks(name, module.get_submodule(name))
    ]
    try:
        run({name: value[:NUM_ROWS] for name, value in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    return watcher.links


class _Watcher:
    """Notes which tensors the blocks take and give."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self._wires: dict[int, Wire] = {}
        self._alive: list[Tensor] = []
        """An id says nothing once its tensor is gone."""

    def hooks(self, name: str, block: nn.Module) -> list[Any]:
        from torch import Tensor

        versions: list[tuple[Tensor, int]] = []

        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            index, known = len(self.links), len(self._wires)
            call = mapped((args, kwargs), Tensor, lambda each: self._wire(each, index, "in"))
            self.links.append(Link(name, call, len(self._wires) > known, overwrites=False))
            versions[:] = [(each, each._version) for each in leaves((args, kwargs), Tensor)]

        def leave(_: nn.Module, args: Any, output: Any) -> None:
            index = len(self.links) - 1
            if any(each._version != version for each, version in versions):
                self.links[index] = replace(self.links[index], overwrites=True)
            versions.clear()
            for number, each in enumerate(leaves(output, Tensor)):
                # what comes out is this block's, even if it is the tensor that went in
                self._wires[id(each)] = Wire(index, "out", number)
                self._alive.append(each)

        return [
            block.register_forward_pre_hook(enter, with_kwargs=True),
            block.register_forward_hook(leave),
        ]

    def _wire(self, tensor: Tensor, index: int, side: str) -> Wire:
        if id(tensor) not in self._wires:
            number = sum(wire[:2] == (index, side) for wire in self._wires.values())
            self._wires[id(tensor)] = Wire(index, side, number)
            self._alive.append(tensor)
        return self._wires[id(tensor)]
