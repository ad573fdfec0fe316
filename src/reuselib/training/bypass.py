"""Running only the upper part of a network: what is below the cut stands aside, and the cut is fed from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reuselib.training.cut import Cut, main_input
from reuselib.training.tracing import Call, leaves

if TYPE_CHECKING:
    from torch import Tensor, nn


class Reached(Exception):
    """What is above the cut is about to be called."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        super().__init__()


@dataclass
class Bypass:
    """A way around the lower part of a network, open or closed."""

    cut: Cut
    aside: Sequence[Call] = ()
    """Calls below the cut that do not happen while it is open."""
    fed: Tensor | None = None
    """What the cut is fed with; None while the bypass is closed."""
    poisoned: bool = False
    """Whether everything that stands aside gives NaN, so that whatever gets around the cut can be told by it."""
    caught: Tensor | None = field(default=None, repr=False)
    """What went into the cut last, in a pass through the whole network."""
    stops: bool = False
    """Whether such a pass ends at the cut, by raising `Reached`."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The network obeys this within."""
        at = self.cut.at.module
        handle = at.register_forward_pre_hook(self._arrive, with_kwargs=True, prepend=True)
        kept: list[tuple[nn.Module, Any]] = []
        try:
            for call in self.aside:
                kept.append((call.module, call.module.__dict__.get("forward")))
                call.module.forward = self._standing_aside(call)
            yield
        finally:
            handle.remove()
            for part, forward in kept:
                part.__dict__.pop("forward", None)
                if forward is not None:
                    part.forward = forward

    @contextmanager
    def opened(self, value: Tensor) -> Iterator[None]:
        """The upper part alone runs within, on `value`; also when it is run again on the way back."""
        self.fed = value
        try:
            yield
        finally:
            self.fed = None

    def _arrive(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        from torch.utils import _pytree

        values, form = _pytree.tree_flatten((args, kwargs))
        value = main_input(values)
        if self.fed is None:
            if self.stops:
                raise Reached(value)
            self.caught = value
            return None
        return _pytree.tree_unflatten(
            [self.fed if each is value else each for each in values], form
        )

    def _standing_aside(self, call: Call) -> Callable[..., Any]:
        """A forward that answers with something of the right form and size, at no cost."""
        from torch.utils import _pytree

        forward = call.module.forward
        values, form = _pytree.tree_flatten(call.output)
        answers = [_Answer.to(call, value) for value in values]

        def stand_aside(*args: Any, **kwargs: Any) -> Any:
            if self.fed is None:
                return forward(*args, **kwargs)
            inputs = leaves((args, kwargs))
            given = [answer(inputs, poisoned=self.poisoned) for answer in answers]
            return _pytree.tree_unflatten(given, form)

        return stand_aside


@dataclass(frozen=True)
class _Answer:
    """What stands for one value that a call gives."""

    sample: Any
    """What was given: all of it, or the first row."""
    by_row: bool = False
    passed_on: bool = False
    """Whether it has the shape of what went in, which is then passed on."""

    @classmethod
    def to(cls, call: Call, value: Any) -> _Answer:
        """For a value that the call gave when it was watched."""
        from torch import Tensor

        main, first = main_input(call.inputs), _first_tensor(call.inputs)
        if not isinstance(value, Tensor):
            return cls(value)
        if main is not None and value.shape == main.shape and value.dtype == main.dtype:
            return cls(None, passed_on=True)
        if first is not None and first.ndim and value.ndim and len(first) == len(value):
            return cls(value[:1].clone(), by_row=True)
        return cls(value)

    def __call__(self, inputs: Sequence[Any], *, poisoned: bool) -> Any:
        """For other inputs: as many rows as these have."""
        import torch

        given = self.sample
        if self.passed_on:
            given = main_input(inputs)
        elif self.by_row:
            given = given.expand(len(_first_tensor(inputs)), *given.shape[1:])
        if poisoned and isinstance(given, torch.Tensor) and given.is_floating_point():
            return torch.full_like(given, torch.nan)
        return given


def _first_tensor(inputs: Sequence[Any]) -> Tensor:
    from torch import Tensor

    found = (each for each in inputs if isinstance(each, Tensor))
    return next(found, None)  # pyright: ignore[reportReturnType] - there is one where rows are known
