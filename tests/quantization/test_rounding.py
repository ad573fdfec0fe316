from __future__ import annotations

import pytest
import torch

from reuselib.quantization.rounding import nearest
from reuselib.quantization.schemes import scheme

SCHEMES = [
    scheme("int8"),
    scheme("int8-weight", group_size=16),
    scheme("int4-weight", group_size=16),
]


@pytest.mark.parametrize("how", SCHEMES, ids=lambda how: f"{how.grid}")
def test_no_weight_moves_by_more_than_half_a_step(weight, how):
    rounded = nearest(weight, how)

    moved = (rounded.restored() - weight).abs().unflatten(1, (rounded.scales.shape[1], -1))

    assert (moved.amax(-1) <= rounded.scales / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("how", SCHEMES, ids=lambda how: f"{how.grid}")
def test_compressed_tensors_reads_the_same_weights(weight, how):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    from reuselib.quantization.interchange import quantization_config

    rounded = nearest(weight, how)
    group = quantization_config({"x": how}, [], ["x"])["config_groups"]["group_0"]
    theirs = BaseCompressor.get_value_from_registry(group["format"])

    state = theirs.decompress(rounded.tensors(how), QuantizationScheme(**group))

    assert state["weight"].equal(rounded.restored())


@pytest.mark.parametrize("how", SCHEMES, ids=lambda how: f"{how.grid}")
def test_compressed_tensors_stores_the_same_bits(weight, how):
    """With our scales, its own rounding and packing gives what we write."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    from reuselib.quantization.interchange import quantization_config

    rounded = nearest(weight, how)
    group = quantization_config({"x": how}, [], ["x"])["config_groups"]["group_0"]
    theirs = BaseCompressor.get_value_from_registry(group["format"])
    state = {"weight": weight, "weight_scale": rounded.scales}

    assert {
        name: value.tolist()
        for name, value in theirs.compress(state, QuantizationScheme(**group)).items()
    } == {name: value.tolist() for name, value in rounded.tensors(how).items()}


def test_four_bits_take_half_of_eight(weight):
    def num_bytes(how):
        return sum(each.nbytes for each in nearest(weight, how).tensors(how).values())

    large = torch.randn(512, 1024)
    weight = large
    assert num_bytes(scheme("int4-weight")) <= 0.55 * num_bytes(scheme("int8"))
