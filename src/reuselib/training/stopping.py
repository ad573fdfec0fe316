"""Early stopping: remember the best weights, and notice when it gets no better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError
from reuselib.training.plan import EarlyStopping
from reuselib.training.shares import cut_like

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class Best:
    """The best weights seen, by the validation metric."""

    plan: EarlyStopping
    metric: str
    greater_is_better: bool
    epoch: int = -1
    value: float = math.nan
    weights: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    learned: tuple[str, ...] = ()
    """Names of parameters that learn sooner or later: what was still frozen in the best epoch is put back as well."""
    _mark: float = math.nan

    def offer(self, module: nn.Module, epoch: int, metrics: dict[str, float]) -> None:
        """Take note of the validation metrics after `epoch`, and of the weights if they are the best.

        Raises:
            TrainingError: the metric is missing or not a number.
        """
        if self.metric not in metrics:
            raise TrainingError(
                f"the validation metrics have no '{self.metric}'", expected=", ".join(metrics)
            )
        value = metrics[self.metric]
        if math.isnan(value):
            raise TrainingError(f"the validation {self.metric} is nan after epoch {epoch}")
        if self._gain(value, self.value) > 0:
            self.epoch, self.value, self.weights = epoch, value, self._copied(module)
        if self._gain(value, self._mark) > self.plan.min_delta:
            self._mark, self.waited = value, 0
        else:
            self.waited += 1

    @property
    def exhausted(self) -> bool:
        """Whether more epochs went by without improvement than are allowed."""
        return self.waited > self.plan.patience

    @property
    def figures(self) -> tuple[float, float]:
        """The best value, and the one that the next must be better than; NaN before the first."""
        return self.value, self._mark

    @figures.setter
    def figures(self, both: tuple[float, float]) -> None:
        self.value, self._mark = both

    def restore(self, module: nn.Module) -> None:
        """Put the best weights back."""
        import torch

        with torch.no_grad():
            for name, value in self._moving(module).items():
                value.copy_(cut_like(self.weights[name], value))

    def _gain(self, value: float, than: float) -> float:
        if math.isnan(than):
            return math.inf
        return value - than if self.greater_is_better else than - value

    def _moving(self, module: nn.Module) -> dict[str, Tensor]:
        """All that training can change: parameters that learn, and buffers such as running statistics."""
        learning = {
            name: part
            for name, part in module.named_parameters()
            if part.requires_grad or name in self.learned
        }
        return {**learning, **dict(module.named_buffers())}

    def _copied(self, module: nn.Module) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._moving(module).items()}
