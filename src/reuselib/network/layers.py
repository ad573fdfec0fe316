"""Linear layers of either layout: torch's keeps its weight as [out, in], GPT-2's Conv1D as [in, out]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def is_transposed(layer: nn.Module) -> bool:
    """Whether the layer keeps its weight as [in, out]."""
    return type(layer).__name__ == "Conv1D"


def dims(layer: nn.Module) -> tuple[int, int]:
    """The dimensions of the weight that run over outputs and over inputs."""
    return (1, 0) if is_transposed(layer) else (0, 1)


def matrix(layer: nn.Module) -> Tensor:
    """The weight as a view [out, in, ...], so that what is written to it is written to the layer."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.T if is_transposed(layer) else weight
