"""A model that teaches: known by its digests, opened only if what it says is not on the disk already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.errors import IncompatibleStep

if TYPE_CHECKING:
    from torch import nn

    from reuselib.model.opening import Opened


@dataclass(frozen=True)
class Teacher:
    """A complete model of the same task."""

    identity: tuple[str, ...]
    """Its digests, see `derivation.plan.identity`; empty if what it says is not to be kept."""
    open: Callable[[], Opened]

    def module(self) -> nn.Module:
        """The network, in evaluation mode.

        Raises:
            IncompatibleStep: it lacks weights, such as those of a head for this task.
        """
        return complete(self.open()).module


def complete(opened: Opened) -> Opened:
    """The same, if no tensor had to be newly initialised."""
    if opened.fresh:
        raise IncompatibleStep(
            f"the model has no weights for {min(opened.fresh)}: it was not made for this task",
            expected="a model that is complete for the task",
            fix="fine-tune it for the task first and name the child",
        )
    return opened
