from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from reuselib.quantization.layers import (
    PackedLinear,
    QuantizedEmbedding,
    QuantizedLinear,
    layer_class,
)
from reuselib.quantization.rounding import nearest
from reuselib.quantization.schemes import ROWS, scheme

SCHEMES = [scheme("int8"), scheme("int8-weight"), scheme("int4-weight", group_size=16)]


@pytest.fixture(params=SCHEMES, ids=["int8", "int8-weight", "int4-weight"])
def layer(request, weight):
    how = request.param
    made = layer_class(how)(64, 48, how, bias=True)
    made.fill(nearest(weight, how), torch.randn(48))
    return made


def test_tensors_have_the_names_of_compressed_tensors():
    plain, packed = (
        QuantizedLinear(64, 48, SCHEMES[0], bias=True),
        PackedLinear(64, 48, SCHEMES[2], bias=False),
    )

    assert {n: (t.dtype, *t.shape) for n, t in plain.state_dict().items()} == {
        "weight": (torch.int8, 48, 64),
        "weight_scale": (torch.float32, 48, 1),
        "bias": (torch.float32, 48),
    }
    assert {n: (t.dtype, *t.shape) for n, t in packed.state_dict().items()} == {
        "weight_packed": (torch.int32, 48, 8),
        "weight_scale": (torch.float32, 48, 4),
        "weight_shape": (torch.int64, 2),
    }


def test_a_layer_is_close_to_the_one_it_stands_for(layer, weight, inputs):
    wanted = nn.functional.linear(inputs, weight, layer.bias)

    assert (layer(inputs) - wanted).norm() < 0.15 * wanted.norm()
    assert isinstance(layer, nn.Linear)


def test_gradients_are_those_of_the_restored_weights(layer, inputs):
    inputs.requires_grad_()
    factor = torch.randn(3, 5, 48)

    (layer(inputs) * factor).sum().backward()

    assert torch.allclose(inputs.grad, factor @ layer.dequantized(), atol=1e-5)
    assert all(not each.requires_grad for each in layer.parameters())


def test_a_layer_without_its_kernel_is_copied_and_pickled(layer, inputs):
    wanted = layer(inputs)

    assert copy.deepcopy(layer)(inputs).equal(wanted)
    assert pickle.loads(pickle.dumps(layer))(inputs).equal(wanted)
    assert not any("built" in name for name in layer.state_dict())


def test_new_weights_are_seen_at_once(layer, weight, inputs):
    before = layer(inputs)

    layer.fill(nearest(weight.flip(0), layer.scheme))
    after = layer(inputs)
    layer.load_state_dict({**layer.state_dict(), "bias": torch.zeros(48)})

    assert not after.equal(before)
    assert torch.allclose(layer(inputs) + (after - layer(inputs)), after)
    assert not layer(inputs).equal(after)


def test_outputs_have_the_dtype_of_inputs(layer, inputs):
    assert layer(inputs.bfloat16()).dtype == torch.bfloat16
    assert layer(inputs[:0]).shape == (0, 5, 48)


def test_an_embedding_restores_the_rows_that_are_looked_up(weight):
    table = QuantizedEmbedding(48, 64, padding_idx=0)
    table.fill(nearest(weight, ROWS))
    rows = torch.tensor([[3, 0], [47, 3]])

    assert table(rows).equal(table.dequantized()[rows])
    assert (table(rows) - weight[rows]).abs().max() <= table.weight_scale.max() / 2 * (1 + 1e-5)
    assert isinstance(table, nn.Embedding)
