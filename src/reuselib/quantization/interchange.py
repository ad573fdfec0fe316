"""What `quantization_config` says, so that other readers of the compressed-tensors format open a child."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reuselib.quantization.schemes import ROWS, Scheme

if TYPE_CHECKING:
    from torch import nn

    from reuselib.adapter import Json

MIXED = "mixed-precision"
"""The format of a file that holds layers of several formats."""


def declare(
    module: Any,
    layers: Mapping[str, Scheme],
    tables: Sequence[Sequence[str]],
    linear: Collection[str],
) -> None:
    """Let the configuration of a network of transformers, which is saved with it, say how it is quantized."""
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        places = [name for places in tables for name in places]
        config.quantization_config = quantization_config(layers, places, linear)


def linear_names(module: nn.Module) -> list[str]:
    """All linear layers of a network, also those that are not quantized, by name."""
    from torch import nn

    return [name for name, each in module.named_modules() if isinstance(each, nn.Linear)]


def quantization_config(
    layers: Mapping[str, Scheme], embeddings: Sequence[str], linear: Collection[str]
) -> dict[str, Json]:
    """The value of `quantization_config` in config.json.

    The scheme that most layers have is said of all linear layers, with the others named as exceptions: readers that
    fuse layers, such as vLLM, look for that.

    Args:
        layers: scheme by name of each quantized linear layer.
        embeddings: names of the quantized embeddings, and of output layers tied to one.
        linear: names of all linear layers of the network.
    """
    schemes = list(dict.fromkeys(layers.values()))
    counts = Counter(layers.values())
    common = max(schemes, key=counts.__getitem__, default=None)
    groups: list[Json] = []
    if embeddings:
        groups.append(_group(ROWS, list(embeddings)))
    for each in schemes:
        if each != common:
            groups.append(_group(each, [name for name, has in layers.items() if has == each]))
    if common is not None:
        groups.append(_group(common, ["Linear"]))
    formats = {group["format"] for group in groups}  # type: ignore[index,call-overload]
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": formats.pop() if len(formats) == 1 else MIXED,
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
        "ignore": sorted(set(linear) - set(layers) - set(embeddings)),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _group(scheme: Scheme, targets: list[Json]) -> Json:
    inputs = scheme.activations
    return {
        "targets": targets,
        "weights": _weights(scheme),
        "input_activations": _arguments(8, inputs, dynamic=True) if inputs else None,
        "output_activations": None,
        "format": "pack-quantized" if scheme.packed else "int-quantized",
    }


def _weights(scheme: Scheme) -> Json:
    grid = scheme.grid
    strategy = "channel" if grid.group_size is None else "group"
    return {**_arguments(grid.bits, strategy, dynamic=False), "group_size": grid.group_size}


def _arguments(bits: int, strategy: str, *, dynamic: bool) -> dict[str, Json]:
    return {
        "num_bits": bits,
        "type": "int",
        # one range for a whole tensor need not be centred on zero
        "symmetric": strategy != "tensor",
        "strategy": strategy,
        "dynamic": dynamic,
    }
