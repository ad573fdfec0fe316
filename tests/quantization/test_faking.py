from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.quantization.faking import RoundingLinear
from reuselib.quantization.kernels import use_kernel
from reuselib.quantization.layers import layer_class
from reuselib.quantization.rounding import nearest
from reuselib.quantization.schemes import scheme

SCHEMES = [
    scheme("int8"),
    scheme("int8", activations="tensor"),
    scheme("int4-weight", group_size=16),
]


@pytest.mark.parametrize("how", SCHEMES, ids=["token", "tensor", "int4-weight"])
def test_training_sees_what_the_quantized_layer_will_give(inputs, how):
    dense = nn.Linear(64, 48)
    quantized = layer_class(how)(64, 48, how, bias=True)
    quantized.fill(nearest(dense.weight, how), dense.bias)

    with use_kernel("dequantized"):
        assert RoundingLinear(dense, how)(inputs).equal(quantized(inputs))


def test_gradients_pass_as_if_nothing_was_rounded(inputs):
    dense, how = nn.Linear(64, 48), SCHEMES[0]
    layer = RoundingLinear(dense, how)
    inputs.requires_grad_()

    layer(inputs).sum().backward()

    ones = torch.ones(15, 48)
    assert torch.allclose(
        inputs.grad.view(15, 64), ones @ nearest(dense.weight, how).restored(), atol=1e-5
    )
    assert torch.allclose(dense.bias.grad, torch.full((48,), 15.0))
    assert torch.allclose(dense.weight.grad, ones.T @ inputs.detach().view(15, 64), atol=0.2)


def test_weights_kept_transposed_are_rounded_by_output(inputs):
    from transformers.pytorch_utils import Conv1D

    layer, twin = Conv1D(48, 64), nn.Linear(64, 48)
    with torch.no_grad():
        twin.weight.copy_(layer.weight.T)
        twin.bias.copy_(layer.bias)

    assert RoundingLinear(layer, SCHEMES[0])(inputs).equal(RoundingLinear(twin, SCHEMES[0])(inputs))
