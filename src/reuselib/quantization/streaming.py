"""Rounding to the nearest, a layer at a time: of a network that is on disk only, into tensors to be written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.network.sharing import own_names
from reuselib.quantization.halving import narrowed
from reuselib.quantization.kernels import Dequantized
from reuselib.quantization.rounding import nearest
from reuselib.quantization.schemes import ROWS, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.adapter import Weights


def halved(module: nn.Module, weights: Weights, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a network, rounded to `bfloat16` or `float16` where they are floating point; raises as `halve`."""
    import torch

    for name in own_names(module):
        tensor = weights[name]
        floating = tensor.is_floating_point()
        yield name, narrowed(name, tensor, getattr(torch, dtype)) if floating else tensor


@dataclass(frozen=True)
class Rounding:
    """What becomes of the tensors of a network."""

    layers: Mapping[str, Scheme]
    """By name of each linear layer to round."""
    tables: Sequence[Sequence[str]]
    """Places that share an embedding, see `replacing.token_tables`."""
    transposed: frozenset[str]
    """Layers whose weight is [in, out]."""
    kernels: Counter[str] = field(default_factory=Counter[str])
    """How many layers this machine computes with which kernel, of those that went by."""

    def tensors(
        self, before: Sequence[str], child: nn.Module, weights: Weights
    ) -> Iterator[tuple[str, Tensor]]:
        """The child's tensors.

        Args:
            before: names of the parent's tensors.
            child: the network with the rounded layers in it, on the meta device.
            weights: of the parent.
        """
        wanted = frozenset(own_names(child))
        tables = {place: places for places in self.tables for place in places}
        for name in before:
            layer, _, part = name.rpartition(".")
            if part == "weight" and layer in self.layers:
                yield from self._layer(layer, child, weights)
            elif part == "weight" and layer in tables:
                rounded = nearest(weights[name], ROWS).tensors(ROWS)
                named = {f"{at}.{key}": v for at in tables[layer] for key, v in rounded.items()}
                yield from ((each, value) for each, value in named.items() if each in wanted)
                if number := _num_linear(child, tables[layer]):
                    self.kernels[Dequantized.name] += number
            else:
                yield name, weights[name]

    def _layer(self, name: str, child: nn.Module, weights: Weights) -> Iterator[tuple[str, Tensor]]:
        from reuselib.quantization.layers import layer_class

        how, weight = self.layers[name], weights[f"{name}.weight"]
        rounded = nearest(weight.T if name in self.transposed else weight, how)
        bias = child.get_submodule(name).bias is not None
        twin = layer_class(how)(*rounded.codes.shape[::-1], how, bias=bias)
        twin.fill(rounded)
        self.kernels[twin.kernel.name] += 1
        yield from ((f"{name}.{k}", value) for k, value in rounded.tensors(how).items())


def _num_linear(child: nn.Module, places: Sequence[str]) -> int:
    """Output layers among the places of a table; they take their inputs as they are, for which no kernel is faster."""
    from reuselib.quantization.layers import IntegerLinear

    found = {id(each): each for each in map(child.get_submodule, places)}
    return sum(isinstance(each, IntegerLinear) for each in found.values())
