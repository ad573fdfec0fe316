from __future__ import annotations

import pytest
import torch

from reuselib.errors import IncompatibleStep
from reuselib.quantization import kernels
from reuselib.quantization.grid import Grid
from reuselib.quantization.kernels import rounded_inputs, use_kernel
from reuselib.quantization.layers import QuantizedLinear, layer_class
from reuselib.quantization.rounding import Rounded, nearest
from reuselib.quantization.schemes import Scheme, scheme

needs_fbgemm = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="torch was built without fbgemm for this machine",
)


def made(weight, how, bias=None):
    layer = layer_class(how)(weight.shape[1], weight.shape[0], how, bias=bias is not None)
    layer.fill(nearest(weight, how), bias)
    return layer


def exact(layer, inputs, whole=False):
    """Integers by integers in 64 bits, then the scales: what the scheme means."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    steps, scale = rounded_inputs(rows, whole)
    sums = steps.double() @ layer.codes().double().T
    outputs = sums * scale.double() * layer.weight_scale[:, 0].double()
    outputs = outputs if layer.bias is None else outputs + layer.bias.double()
    return outputs.view(*inputs.shape[:-1], -1)


@pytest.mark.parametrize("name", ["", "dequantized"])
@pytest.mark.parametrize("activations", ["token", "tensor"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_every_kernel_computes_the_integer_product(weight, inputs, name, activations, with_bias):
    bias = torch.randn(48) if with_bias else None
    layer = made(weight, scheme("int8", activations=activations), bias)
    wanted = exact(layer, inputs, whole=activations == "tensor")

    if name:
        with use_kernel(name):
            got = layer(inputs)
    else:
        got = layer(inputs)

    assert torch.allclose(got.double(), wanted, atol=1e-5, rtol=1e-5)


def test_torchao_computes_the_same_from_the_same_codes(weight, inputs):
    pytest.importorskip(
        "torchao", reason="the second back end is optional: pip install 'reuselib[quant]'"
    )
    layer = made(weight, scheme("int8"), torch.randn(48))

    with use_kernel("torchao"):
        assert layer.kernel.name == "torchao"
        got = layer(inputs)

    assert torch.allclose(got, layer(inputs), atol=1e-5)


@needs_fbgemm
def test_the_largest_inputs_and_paired_codes_do_not_overflow():
    """Sums of two products that come as near to 16 bits as they may, with inputs of one sign at full scale."""
    how = scheme("int8")
    codes = torch.tensor(
        [[127, 1], [64, 64], [-127, -1], [-64, -64], [127, -127]], dtype=torch.int8
    )
    layer = QuantizedLinear(64, 5, how, bias=False)
    layer.fill(Rounded(codes.repeat(1, 32), torch.ones(5, 1)))
    inputs = torch.stack([torch.ones(64), -torch.ones(64)])

    assert layer.kernel.name == "fbgemm"
    assert torch.allclose(layer(inputs).double(), exact(layer, inputs))


@needs_fbgemm
def test_codes_that_could_overflow_take_inputs_of_seven_bits(weight, inputs, monkeypatch):
    monkeypatch.setattr(kernels, "_overflows", lambda: True)
    how = Scheme(Grid(8), "token")
    layer = made(weight, how)

    got, wanted = layer(inputs), inputs @ layer.dequantized().T

    assert layer.kernel.name == "fbgemm-7bit"
    # exact but for the rounding of inputs: half a step of 1/63 each
    limit = inputs.abs().amax(-1, keepdim=True) / 126 * layer.dequantized().abs().sum(1)
    assert ((got - wanted).abs() <= limit * 1.001).all()
    rows = inputs.view(-1, 64)
    steps = (rows / (rows.abs().amax(1, keepdim=True) / 63)).round()
    exact7 = steps @ layer.codes().float().T * (rows.abs().amax(1, keepdim=True) / 63)
    assert torch.allclose(got.view(-1, 48), exact7 * layer.weight_scale[:, 0], atol=1e-4)


@needs_fbgemm
def test_an_output_does_not_depend_on_what_else_is_in_the_batch(weight, inputs):
    layer = made(weight, scheme("int8"))
    alone = torch.cat([layer(row[None]) for row in inputs.view(-1, 64)])

    assert layer(inputs).view(-1, 48).equal(alone)


def test_weights_alone_in_integers_are_computed_dense(weight, inputs):
    layer = made(weight, scheme("int4-weight", group_size=16))

    assert layer.kernel.name == "dequantized"
    assert layer(inputs).equal(torch.nn.functional.linear(inputs, layer.dequantized()))


def test_a_machine_without_integer_kernels_computes_the_same(weight, inputs, monkeypatch):
    layer = made(weight, scheme("int8"))
    wanted = layer(inputs)
    monkeypatch.setattr(kernels, "_has_fbgemm", lambda _: False)

    again = made(weight, scheme("int8"))

    assert again.kernel.name == "dequantized"
    assert torch.allclose(again(inputs), wanted, atol=1e-5)


def test_inputs_of_zeros_give_the_bias(weight):
    bias = torch.randn(48)

    assert made(weight, scheme("int8"), bias)(torch.zeros(2, 64)).equal(bias.expand(2, -1))


def test_an_unknown_kernel_is_refused():
    with pytest.raises(IncompatibleStep, match="no kernel"), use_kernel("cutlass"):
        pass


@pytest.mark.parametrize("strategy", ["token", "tensor"])
def test_inputs_are_rounded_as_compressed_tensors_does(inputs, strategy):
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils.helpers import compute_dynamic_scales_and_zp

    symmetric = strategy == "token"
    inputs = inputs if symmetric else inputs + 0.7  # off centre
    how = QuantizationArgs(num_bits=8, symmetric=symmetric, strategy=strategy, dynamic=True)
    scale, zero = compute_dynamic_scales_and_zp(value=inputs, args=how, module=torch.nn.Identity())

    steps, ours = rounded_inputs(inputs.view(-1, 64), whole=not symmetric)

    theirs = fake_quantize(inputs, scale, zero, how)
    assert torch.allclose((steps * ours).view_as(inputs), theirs, atol=1e-6)
    assert len(steps.unique()) <= 256
