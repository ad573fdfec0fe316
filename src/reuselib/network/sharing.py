"""Which tensors of a network are one and the same, such as an output layer's that is tied to the embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def shared_names(module: nn.Module) -> dict[str, str]:
    """By every name in the network's state, the first name of that tensor; works on the meta device as well."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name)
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def own_names(module: nn.Module) -> list[str]:
    """The names in the network's state, of tensors that are shared the first only."""
    return list(dict.fromkeys(shared_names(module).values()))
