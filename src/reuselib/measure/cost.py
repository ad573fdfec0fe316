"""What a model costs: parameters and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Cost:
    """Counts of one model."""

    num_parameters: int
    """Each shared (tied) parameter once."""
    num_trainable: int
    """Those that the step that made the model could change."""
    num_bytes: int
    """Of the weights files on disk."""


def cost(module: nn.Module, folder: Path, *, num_trainable: int) -> Cost:
    """Count a network's parameters and the bytes of its `*.safetensors` in `folder`."""
    return Cost(
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        num_trainable=num_trainable,
        num_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    )
