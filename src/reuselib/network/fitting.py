"""Numbers that modules keep beside their weights: brought in line with the weights after a cut."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from reuselib.network.families import Attention, Block, Family, family
from reuselib.network.layers import dims

if TYPE_CHECKING:
    from torch import nn


def fit_attributes(module: nn.Module) -> None:
    """Correct every attribute that repeats a size, from the weights as they are now.

    Raises:
        IncompatibleStep: the network's family has no table.
    """
    for submodule in module.modules():
        _fit_layer(submodule)
    found = family(module)
    for stack in found.stacks:
        for index, block in enumerate(found.of_stack(stack)):
            _fit_block(module, found, block, index)
    _fit_network(module, found)


def _fit_layer(layer: Any) -> None:
    """A single layer, whichever of the usual attributes it has."""
    weight = getattr(layer, "weight", None)
    if weight is None:
        return
    if hasattr(layer, "normalized_shape"):
        layer.normalized_shape = tuple(weight.shape)
    elif hasattr(layer, "embedding_dim"):
        layer.embedding_dim = weight.shape[1]
    elif hasattr(layer, "in_channels"):
        layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1] * layer.groups
    elif weight.dim() == 2:
        out_dim, in_dim = dims(layer)
        out_name, in_name = (
            ("nf", "nx") if hasattr(layer, "nf") else ("out_features", "in_features")
        )
        setattr(layer, out_name, weight.shape[out_dim])
        setattr(layer, in_name, weight.shape[in_dim])


def _fit_block(module: nn.Module, found: Family, block: Block, index: int) -> None:
    for attention in block.attentions:
        holder: Any = module.get_submodule(attention.name)
        values = {
            "heads": attention.num_heads,
            "groups": attention.num_groups,
            "repeats": attention.repeats,
            "width": attention.num_heads * attention.head_dim,
            "hidden": found.hidden_size,
        }
        for name, meaning in attention.table.attributes.items():
            setattr(holder, name, values[meaning])
        _fit_own_config(module, holder, attention)
    feed_forward = block.feed_forward
    if feed_forward.table.attribute:
        owner, _, name = feed_forward.table.attribute.rpartition(".")
        setattr(module.get_submodule(f"{block.name}.{owner}"), name, feed_forward.num_units)
    for submodule in module.get_submodule(block.name).modules():
        # where keys and values are cached; a dropped block leaves no gap
        if isinstance(getattr(submodule, "layer_idx", None), int):
            submodule.layer_idx = index  # type: ignore[assignment]


def _fit_own_config(module: nn.Module, holder: Any, attention: Attention) -> None:
    """Give an attention that asks its configuration for its heads at every call one that says its own number."""
    key, shared = attention.table.config_key, module.config
    if not key:
        return
    if getattr(shared, key) == attention.num_heads:
        holder.config = shared
    elif getattr(holder.config, key) != attention.num_heads:
        holder.config = copy.copy(shared)
        setattr(holder.config, key, attention.num_heads)


def _fit_network(module: nn.Module, found: Family) -> None:
    values = {
        "hidden": found.hidden_size,
        "root": found.hidden_size**0.5,
        "blocks": len(found.blocks),
    }
    for submodule in module.modules():
        for name, meaning in found.table.attributes.items():
            if name in vars(submodule):
                setattr(submodule, name, values[meaning])
                _fit_scale(submodule, values[meaning])


def _fit_scale(embedding: Any, scale: float) -> None:
    """Gemma's embedding also keeps its scale as a tensor."""
    if hasattr(embedding, "embed_scale"):
        embedding.embed_scale.fill_(scale)
