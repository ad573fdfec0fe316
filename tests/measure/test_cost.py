from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.measure.cost import Cost, cost


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 5)
        self.outer = nn.Linear(3, 5, bias=False)
        self.outer.weight = self.inner.weight
        self.register_buffer("mean", torch.zeros(7))


def test_a_shared_parameter_counts_once_and_a_buffer_not_at_all(tmp_path):
    assert cost(Tied(), tmp_path, num_trainable=0).num_parameters == 3 * 5 + 5


@pytest.mark.parametrize("num_trainable", [0, 12])
def test_what_could_learn_is_what_the_step_says(tmp_path, num_trainable):
    module = nn.Linear(3, 4)

    assert cost(module, tmp_path, num_trainable=num_trainable) == Cost(16, num_trainable, 0)


def test_bytes_are_those_of_all_weights_files_and_of_no_other(tmp_path):
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"x" * 5)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 100)

    assert cost(nn.Linear(1, 1), tmp_path, num_trainable=0).num_bytes == 15


@pytest.mark.parametrize("name", ["int8", "int4-weight"])
def test_integers_count_as_the_weights_they_stand_for(tmp_path, name):
    from reuselib.quantization.layers import QuantizedEmbedding, layer_class
    from reuselib.quantization.schemes import scheme

    layer = layer_class(scheme(name))(128, 6, scheme(name), bias=True)
    module = nn.Sequential(QuantizedEmbedding(11, 128, None), layer, layer)

    assert cost(module, tmp_path, num_trainable=0).num_parameters == 11 * 128 + 128 * 6 + 6
