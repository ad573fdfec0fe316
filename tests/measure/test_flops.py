"""Against counts by hand: a product of [m, k] and [k, n] takes 2 m k n operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.measure.flops import count_flops, plain
from reuselib.quantization.layers import layer_class
from reuselib.quantization.schemes import INTEGER, scheme


def counted(module: nn.Module, *inputs: torch.Tensor) -> int:
    return count_flops(module.eval(), lambda: module(*inputs))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer(bias):
    assert counted(nn.Linear(12, 5, bias=bias), torch.zeros(2, 3, 12)) == 2 * (2 * 3) * 12 * 5


def test_a_convolution():
    layer = nn.Conv2d(3, 8, kernel_size=3, padding=1, stride=2)

    assert counted(layer, torch.zeros(2, 3, 10, 10)) == 2 * (2 * 5 * 5) * (3 * 3 * 3) * 8


def test_a_grouped_convolution_sees_only_its_group():
    layer = nn.Conv2d(8, 8, kernel_size=3, padding=1, groups=8)

    assert counted(layer, torch.zeros(1, 8, 4, 4)) == 2 * (4 * 4) * (3 * 3) * 8


class Attention(nn.Module):
    def forward(self, query, key, value):
        return nn.functional.scaled_dot_product_attention(query, key, value)


def test_attention_is_two_products_also_in_the_fused_kernel_of_cpus():
    batch, heads, length, other, width = 2, 4, 7, 9, 16
    query = torch.zeros(batch, heads, length, width)
    key = torch.zeros(batch, heads, other, width)

    assert counted(Attention(), query, key, key) == 2 * (2 * batch * heads * length * other * width)


def test_what_only_adds_or_looks_up_counts_nothing():
    assert counted(nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4)), torch.zeros(3).long()) == 0


@pytest.mark.parametrize("name", INTEGER)
def test_a_quantized_layer_counts_as_the_dense_one(name):
    layer = layer_class(scheme(name))(128, 8, scheme(name), bias=True)

    assert counted(nn.Sequential(layer), torch.zeros(3, 128)) == 2 * 3 * 128 * 8


class Doubled(nn.Linear):
    """A layer whose arithmetic no counter sees."""

    def forward(self, input):
        return input.sum(-1, keepdim=True).expand(*input.shape[:-1], self.out_features)


def test_layers_compute_as_before_afterwards():
    module = nn.Sequential(Doubled(4, 3))
    before = module(torch.ones(2, 4))

    with plain(module):
        assert module(torch.ones(2, 4)).equal(torch.zeros(2, 3))
    assert module(torch.ones(2, 4)).equal(before)
    assert "forward" not in vars(module[0])


def test_a_whole_network_is_the_sum_of_its_layers(tmp_path):
    """BERT of two layers, by the formula of its shapes."""
    from transformers import AutoModelForSequenceClassification

    from reuselib.testing.tiny import tiny_bert

    module = AutoModelForSequenceClassification.from_pretrained(tiny_bert(tmp_path, head=True))
    length, width, inner = 6, 32, 64
    block = 4 * 2 * length * width * width + 2 * 2 * length * width * inner
    attention = 2 * 2 * length * length * width
    head = 2 * width * width + 2 * width * 2

    found = count_flops(module, lambda: module(input_ids=torch.ones(1, length).long()))

    assert found == 2 * (block + attention) + head
