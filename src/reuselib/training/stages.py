"""Which parameters learn in which epoch, and what keeps still around frozen ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError
from reuselib.training.plan import ParameterGroup

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Stages:
    """Opens parameters for learning as the epochs go by.

    Raises:
        TrainingError: nothing learns, or a group would have no effect.
    """

    module: nn.Module
    groups: Sequence[ParameterGroup]
    num_epochs: int
    opens: dict[str, int] = field(init=False)
    """By name of each parameter that learns: the epoch from which it does."""
    still: Sequence[nn.Module] = ()
    """Modules that run in evaluation mode throughout, each without those inside it."""

    def __post_init__(self) -> None:
        self.opens = {
            name: 0 for name, part in self.module.named_parameters() if part.requires_grad
        }
        if not self.opens:
            raise TrainingError(
                "nothing to train: no parameter requires a gradient",
                fix="select at least one parameter, for instance the head",
            )
        seen: set[str] = set()
        for group in self.groups:
            self._check(group, seen)
            seen.update(group.names)
            self.opens.update(dict.fromkeys(group.names, group.from_epoch))
        if min(self.opens.values()) > 0:
            raise TrainingError(
                "nothing learns in the first epoch: every parameter is still frozen",
                fix="let at least one group start at epoch 0",
            )

    @property
    def last_opening(self) -> int:
        """The epoch from which everything learns."""
        return max(self.opens.values())

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Give every parameter its `requires_grad`, and every module its mode, back afterwards."""
        modes = [(part, part.training) for part in self.module.modules()]
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode
            for name, parameter in self.module.named_parameters():
                if name in self.opens:
                    parameter.requires_grad_(True)
                parameter.grad = None

    def enter(self, epoch: int) -> list[nn.Parameter]:
        """Open what learns from `epoch` on, set the modes, and return all that learns now."""
        open_now: list[nn.Parameter] = []
        for name, parameter in self.module.named_parameters():
            if name in self.opens:
                parameter.requires_grad_(self.opens[name] <= epoch)
                if parameter.requires_grad:
                    open_now.append(parameter)
        self.module.train()
        for part in self.still:
            part.training = False
        still_normalisation(self.module)
        return open_now

    def _check(self, group: ParameterGroup, seen: set[str]) -> None:
        for name in group.names:
            if name not in self.opens:
                near = get_close_matches(name, self.opens, n=1)
                raise TrainingError(
                    f"a parameter group names '{name}', which is not a parameter that learns",
                    expected=f"a name such as '{near[0]}'" if near else "",
                )
            if name in seen:
                raise TrainingError(f"two parameter groups name '{name}'")
        if group.from_epoch >= self.num_epochs:
            raise TrainingError(
                f"parameters that learn from epoch {group.from_epoch} would never learn: the run"
                f" has {self.num_epochs} epochs (counted from 0)",
                fix="train for more epochs, or let them start earlier",
            )


def still_normalisation(module: nn.Module) -> None:
    """Keep the running statistics of normalisation layers whose surroundings are frozen.

    A layer whose own parameters are all frozen keeps its statistics; one without parameters goes with the module
    that holds it.
    """
    from torch.nn.modules.batchnorm import _NormBase

    for parent in module.modules():
        for child in parent.children():
            if isinstance(child, _NormBase):
                owner = child if any(True for _ in child.parameters()) else parent
                if not any(parameter.requires_grad for parameter in owner.parameters()):
                    child.eval()
