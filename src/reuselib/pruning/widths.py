"""Widths of convolutional networks as configurations of transformers say them, where they can."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from reuselib.network.stating import is_described

if TYPE_CHECKING:
    from torch import nn


def state_widths(module: nn.Module) -> bool:
    """Correct the network's configuration, in place, if that can say how wide its layers are now.

    Call it for a network that its configuration described before channels were left out.

    Returns:
        Whether it can: the network is then opened from its configuration like any other. If not, that still describes
        the network before.
    """
    found: Any = getattr(module, "config", None)
    measure = WIDTHS.get(getattr(found, "model_type", ""))
    if measure is None:
        return False
    widths = measure(module.base_model)
    config = copy.deepcopy(found)
    for key, value in widths.items():
        setattr(config, key, value)
    if not is_described(module, config):
        return False
    for key, value in widths.items():
        setattr(found, key, value)
    return True


def _resnet(network: Any) -> dict[str, int | list[int]]:
    stages = network.encoder.stages
    return {
        "embedding_size": network.embedder.embedder.convolution.out_channels,
        "hidden_sizes": [stage.layers[-1].layer[-1].convolution.out_channels for stage in stages],
    }


def _convnext(network: Any) -> dict[str, int | list[int]]:
    stages = network.encoder.stages
    return {"hidden_sizes": [stage.layers[-1].pwconv2.out_features for stage in stages]}


WIDTHS: Mapping[str, Callable[[Any], dict[str, int | list[int]]]] = {
    "convnext": _convnext,
    "convnextv2": _convnext,
    "resnet": _resnet,
}
"""By model type: what its configuration says, measured on the network. Others, such as MobileNetV2 with its one
multiplier for all layers, cannot say what is left."""
