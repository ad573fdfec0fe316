"""Where a network can be cut in two, so that all that learns is above: found by watching one forward pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.network.parts import block_names, within
from reuselib.training.tracing import Call, Trace

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Cut:
    """Everything called before one module, which is the first with anything in it that learns."""

    at: Call
    """The first call above."""
    finished: tuple[Call, ...]
    """The outermost calls that are over by then, of modules that are called only this once."""
    blocks: tuple[Call, ...]
    """Calls of whole blocks that are over by then, likewise."""
    below: frozenset[str]
    """Modules that are done by then: never called again."""
    above: frozenset[str]
    """Modules that are called then or later, for the first time."""
    is_steady: bool
    """Whether what lies below draws no random numbers and changes no buffers."""
    share: float
    """Of the multiplications and additions of a forward pass: how many lie below."""

    @property
    def value(self) -> Tensor:
        """What goes into the first module above, of the rows that were watched."""
        return main_input(self.at.inputs)


def cuts(
    module: nn.Module, trace: Trace, learned: Collection[str], head: Sequence[str]
) -> Iterator[Cut]:
    """Where to cut, the most promising place first.

    In front of the block in which the first parameter that learns is used, or in front of the head if it is there.
    Between the two, such as at a pooler, in front of the module that holds it, or of one around that. Whether what
    lies above needs nothing of what lies below but that one input is not known from here.

    Args:
        module: the network.
        trace: of a forward pass.
        learned: names of the parameters that learn at any time.
        head: names of the submodules that are the head.
    """
    blocks = block_names(module, head)
    for name in _places(_first(module, trace, learned), blocks, head):
        calls = trace.of(name)
        if len(calls) == 1 and main_input(calls[0].inputs) is not None:
            yield _cut(trace, calls[0], blocks)


def main_input(inputs: Sequence[object]) -> Tensor:
    """The first of a call's arguments that holds numbers with a fraction: [rows, ...]; None if there is none."""
    from torch import Tensor

    found = (each for each in inputs if isinstance(each, Tensor) and each.is_floating_point())
    return next(found, None)  # pyright: ignore[reportReturnType] - `cuts` sees to it


def _first(module: nn.Module, trace: Trace, learned: Collection[str]) -> str:
    """The module that uses a parameter that learns before all others do; empty if that is the network itself."""
    ids = {id(module.get_parameter(name)) for name in learned}
    entered: dict[str, int] = {}
    for call in trace.calls:
        entered.setdefault(call.name, call.entered)
    owners: list[str] = []
    for name, part in module.named_modules():
        if any(id(each) in ids for each in part.parameters(recurse=False)):
            # what is never called is used by a module around it
            while name not in entered:
                name = name.rpartition(".")[0]
            owners.append(name)
    return min(owners, key=lambda name: entered[name])


def _places(first: str, blocks: Sequence[str], head: Sequence[str]) -> list[str]:
    whole = [name for name in (*blocks, *head) if any(within((first,), (name,)))]
    if whole or not first:
        return whole[:1]
    parts = first.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _cut(trace: Trace, at: Call, blocks: Sequence[str]) -> Cut:
    around: list[Call] = []
    outer = at.outer
    while outer is not None:
        around.append(outer)
        outer = outer.outer
    over = [call for call in trace.calls if call.left is not None and call.left < at.entered]
    later = {
        id(call.module) for call in trace.calls if call.left is None or call.left >= at.entered
    }
    before = {id(call.module) for call in trace.calls if call.entered < at.entered}
    first = {id(call.module): call.name for call in trace.calls if id(call.module) not in before}
    numbers: dict[int, int] = {}
    for call in trace.calls:
        numbers[id(call.module)] = numbers.get(id(call.module), 0) + 1
    single = [call for call in over if numbers[id(call.module)] == 1]
    below = frozenset(call.name for call in over if id(call.module) not in later)
    return Cut(
        at,
        finished=tuple(call for call in single if any(call.outer is each for each in around)),
        blocks=tuple(call for call in single if call.name in blocks),
        below=below,
        above=frozenset(first.values()),
        is_steady=not at.drew and not any(call.name in trace.moved for call in over),
        share=at.flops / trace.flops if trace.flops else 0.0,
    )
