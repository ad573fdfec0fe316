"""Training with the rounding in it: weights and inputs are rounded on the way forward, gradients pass as if not.

Quantization-aware training with straight-through estimates (Jacob et al., 2018, https://arxiv.org/abs/1712.05877),
on the very grid that the layers compute with afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reuselib.network.layers import is_transposed
from reuselib.quantization.kernels import rounded_inputs
from reuselib.quantization.rounding import nearest

if TYPE_CHECKING:
    from reuselib.quantization.schemes import Scheme


class RoundingLinear(nn.Module):
    """A linear layer that learns under the rounding it will get. Holds the layer's own parameters by the same names."""

    def __init__(self, layer: Any, scheme: Scheme) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.scheme, self.transposed = scheme, is_transposed(layer)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]: what the quantized layer will give for these weights."""
        weight = self.weight.T if self.transposed else self.weight
        weight = _Through.apply(weight, nearest(weight, self.scheme).restored())
        if self.scheme.activations is not None:
            rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
            steps, scale = rounded_inputs(rows, self.scheme.activations == "tensor")
            inputs = _Through.apply(inputs, (steps * scale).view(inputs.shape))
        return nn.functional.linear(inputs, weight, self.bias)


@contextmanager
def rounding(module: nn.Module, schemes: Mapping[str, Scheme]) -> Iterator[None]:
    """Let every parameter learn during the block, with the rounding in the loop; afterwards layers are plain again.

    Args:
        module: changed in place.
        schemes: by name of each layer that will be rounded.
    """
    originals = {name: module.get_submodule(name) for name in schemes}
    for name, layer in originals.items():
        module.set_submodule(name, RoundingLinear(layer, schemes[name]))
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for name, layer in originals.items():
            module.set_submodule(name, layer)


class _Through(torch.autograd.Function):
    """The rounded values forward, exactly; the gradient back to what was rounded."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
