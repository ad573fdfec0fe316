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
    """Each shared (tied) parameter once; a layer of integer weights as the dense layer that it stands for."""
    num_trainable: int
    """Those that the step that made the model could change."""
    num_bytes: int
    """Of the weights files on disk."""


def cost(module: nn.Module, folder: Path, *, num_trainable: int) -> Cost:
    """Count a network's parameters and the bytes of its `*.safetensors` in `folder`."""
    return Cost(
        num_parameters=count_parameters(module),
        num_trainable=num_trainable,
        num_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    )


def count_parameters(module: nn.Module) -> int:
    """Weights that a network has, however they are stored: scales and packing are no parameters."""
    seen: set[int] = set()
    total = 0
    for part in module.modules():
        own = {id(value): value for value in part.parameters(recurse=False)}
        new = [value for key, value in own.items() if key not in seen]
        stored = _stored_otherwise(part)
        if not stored:
            total += sum(value.numel() for value in new)
        elif new:
            bias = getattr(part, "bias", None)
            total += stored + (bias.numel() if bias is not None else 0)
        seen |= own.keys()
    return total


def _stored_otherwise(part: nn.Module) -> int:
    """Weights of a layer that holds no floating-point matrix, such as one of integers and scales; else 0."""
    from torch import nn

    own = dict(part.named_parameters(recurse=False))
    if "weight" in own and own["weight"].is_floating_point():
        return 0
    if isinstance(part, nn.Linear):
        return part.in_features * part.out_features
    if isinstance(part, nn.Embedding):
        return part.num_embeddings * part.embedding_dim
    return 0
