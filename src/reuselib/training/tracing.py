"""Watching one forward pass: which module is called when, inside which other, and what that draws and changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(eq=False)
class Call:
    """One call of one module."""

    name: str
    """Of the module, in the network that was watched."""
    module: nn.Module
    outer: Call | None
    """The call within which this one happened."""
    entered: int
    """Place in the order of events."""
    inputs: tuple[Any, ...]
    """Its arguments, one after another, whatever they were nested in."""
    flops: int
    """Multiplications and additions before it."""
    drew: bool
    """Whether a generator was drawn from before it."""
    left: int | None = None
    """Place in the order of events; None if it never returned."""
    output: Any = None


@dataclass
class Trace:
    """What was seen, in order."""

    calls: list[Call] = field(default_factory=list[Call])
    flops: int = 0
    """Of the whole pass."""
    moved: set[str] = field(default_factory=set[str])
    """Modules with a buffer that the pass changed, such as running statistics."""

    def of(self, name: str) -> list[Call]:
        """The calls of a module."""
        return [call for call in self.calls if call.name == name]


def leaves(value: Any) -> tuple[Any, ...]:
    """All that nested tuples, lists, dicts and outputs of transformers hold, in order."""
    from torch.utils import _pytree

    return tuple(_pytree.tree_leaves(value))


def traced(run: Callable[[], object], module: nn.Module) -> Trace:
    """What calling `run`, which takes something through `module`, does; generators and buffers are as before."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    trace = Trace()
    with undisturbed(module, trace.moved), torch.no_grad(), counter:
        handles = _listen(module, trace, counter.get_total_flops)
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
    trace.flops = counter.get_total_flops()
    return trace


@contextmanager
def undisturbed(module: nn.Module, moved: set[str] | None = None) -> Iterator[None]:
    """Put generators back afterwards, and each buffer as soon as its module has changed it.

    Args:
        module: the network that runs within.
        moved: receives the names of modules that change buffers.
    """
    names = set[str]() if moved is None else moved
    handles: list[Any] = []

    def guard(name: str, part: nn.Module) -> None:
        before: dict[str, tuple[Tensor, int, Tensor]] = {}

        def enter(*_: object) -> None:
            for key, buffer in part.named_buffers(recurse=False):
                before[key] = (buffer, buffer._version, buffer.clone())

        def leave(*_: object) -> None:
            for key, (buffer, version, copy) in before.items():
                if getattr(part, key) is not buffer or buffer._version != version:
                    names.add(name)
                    setattr(part, key, buffer)
                    buffer.copy_(copy)
            before.clear()

        handles.append(part.register_forward_pre_hook(enter))
        handles.append(part.register_forward_hook(leave, always_call=True))

    for name, part in module.named_modules():
        if any(True for _ in part.buffers(recurse=False)):
            guard(name, part)
    kept = _generators()
    try:
        yield
    finally:
        _restore(kept)
        for handle in handles:
            handle.remove()


def _listen(module: nn.Module, trace: Trace, flops: Callable[[], int]) -> list[Any]:
    ticks = iter(range(2**62))
    opened: list[Call] = []
    begun = _fingerprint()

    def enter(name: str) -> Callable[..., None]:
        def note(part: nn.Module, args: Any, kwargs: Any) -> None:
            outer = opened[-1] if opened else None
            call = Call(
                name,
                part,
                outer,
                entered=next(ticks),
                inputs=leaves((args, kwargs)),
                flops=flops(),
                drew=_fingerprint() != begun,
            )
            trace.calls.append(call)
            opened.append(call)

        return note

    def leave(_part: nn.Module, _args: Any, output: Any) -> None:
        call = opened.pop()
        call.left, call.output = next(ticks), output

    handles: list[Any] = []
    for name, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(enter(name), with_kwargs=True, prepend=True))
        handles.append(part.register_forward_hook(leave))
    return handles


def _generators() -> tuple[Any, ...]:
    import numpy as np
    import torch

    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), devices, np.random.get_state(), random.getstate()


def _restore(state: tuple[Any, ...]) -> None:
    import numpy as np
    import torch

    own, devices, numpy, python = state
    torch.set_rng_state(own)
    for number, value in enumerate(devices):
        torch.cuda.set_rng_state(value, number)
    np.random.set_state(numpy)
    random.setstate(python)


def _fingerprint() -> tuple[bytes, ...]:
    """Equal only as long as nobody draws."""
    own, devices, numpy, python = _generators()
    return (
        own.numpy().tobytes(),
        *(value.numpy().tobytes() for value in devices),
        numpy[1].tobytes(),
        repr((numpy[2:], hash(python))).encode(),
    )
