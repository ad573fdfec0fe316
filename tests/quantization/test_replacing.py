from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.errors import IncompatibleStep
from reuselib.quantization.layers import PackedLinear, QuantizedEmbedding, QuantizedLinear
from reuselib.quantization.replacing import (
    linear_layers,
    matrix,
    replace_linear,
    replace_table,
    token_tables,
)
from reuselib.quantization.schemes import scheme


class Tied(nn.Module):
    """A table that is looked up under two names and read out by a tied layer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 16)
        self.again = self.table
        self.body = nn.Linear(16, 16)
        self.out = nn.Linear(16, 10, bias=False)
        self.out.weight = self.table.weight


class Special(nn.Linear):
    """May read its weight in a way of its own."""


def test_layers_that_share_a_weight_or_are_derived_are_left_alone():
    module = Tied()
    module.special = Special(16, 16)

    assert list(linear_layers(module)) == ["body"]


def test_a_layer_of_gpt2_is_seen_as_outputs_by_inputs():
    from transformers.pytorch_utils import Conv1D

    module = nn.Sequential(Conv1D(6, 4))

    assert matrix(linear_layers(module)["0"]).shape == (6, 4)
    assert replace_linear(module, "0", scheme("int8")).in_features == 4


@pytest.mark.parametrize(
    ("name", "kind"), [("int8", QuantizedLinear), ("int8-weight", PackedLinear)]
)
def test_a_layer_is_replaced_in_its_place(name, kind):
    module = nn.Sequential(nn.Sequential(nn.Linear(8, 4, bias=False))).eval()

    twin = replace_linear(module, "0.0", scheme(name))

    assert type(twin) is kind
    assert module[0][0] is twin
    assert twin.bias is None
    assert not twin.training


def test_a_table_takes_everything_along_that_shares_it():
    module = Tied()

    (places,) = token_tables(module)
    twins = replace_table(module, places)

    assert places == ["table", "again", "out"]
    assert module.table is module.again is twins["table"]
    assert type(module.table) is QuantizedEmbedding
    assert type(module.out) is QuantizedLinear
    assert module.out.weight is module.table.weight
    assert module.out.weight_scale is not module.table.weight_scale


def test_a_table_that_clips_norms_is_no_plain_table():
    with pytest.raises(IncompatibleStep, match="no table of tokens"):
        token_tables(nn.Sequential(nn.Embedding(4, 4, max_norm=1.0)))


def test_groups_that_do_not_divide_name_the_layer_and_what_would_do():
    module = nn.Sequential(nn.Linear(48, 4))

    with pytest.raises(
        IncompatibleStep, match="group_size=32 does not divide the 48 inputs of 0"
    ) as caught:
        replace_linear(module, "0", scheme("int4-weight", group_size=32))
    assert "48, 16, 8" in caught.value.expected
    assert torch.is_floating_point(module[0].weight)
