from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from forensics import zoo
from reuselib.forensics.view import View


def folder_of(path, tensors):
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return path


@pytest.mark.parametrize(
    ("change", "dtype", "reach"), [(zoo.int8, "int8", 127), (zoo.int4, "int4", 7)]
)
def test_an_integer_layer_is_one_weight_that_stands_for_what_was_rounded(
    tmp_path, bert, change, dtype, reach
):
    view = View.of(zoo.made_from(bert, tmp_path / "m", change))
    name = "encoder.layer.1.output.dense.weight"
    dense = zoo.weights(bert)[name]

    weight = view.weights[name]

    assert (weight.dtype, weight.shape) == (dtype, tuple(dense.shape))
    assert len(view.weights) == len(zoo.weights(bert))
    gap = (view.read(name) - dense).abs()
    assert float(gap.max()) <= float(dense.abs().max()) / reach / 2 * 1.001
    assert view.scales(name).shape[0] == dense.shape[0]


@pytest.mark.parametrize(
    "scale",
    [
        torch.ones(3, 1),
        torch.ones(4, 3),
        torch.ones(4),
        torch.ones(4, 1, dtype=torch.int32),
        torch.ones(4, 16),
        torch.ones(4, 0),
    ],
)
def test_scales_that_do_not_fit_leave_the_tensors_as_they_are(tmp_path, scale):
    codes = torch.zeros(4, 8, dtype=torch.int8)

    view = View.of(folder_of(tmp_path / "m", {"a.weight": codes, "a.weight_scale": scale}))

    assert {n: w.dtype for n, w in view.weights.items()}["a.weight"] == "I8"
    assert len(view.weights) == 2


@pytest.mark.parametrize("sizes", [(4, 2**62), (-4, 8), (4, 0), (5, 8)])
def test_a_shape_that_lies_takes_no_memory(tmp_path, sizes):
    tensors = {
        "a.weight_packed": torch.zeros(4, 1, dtype=torch.int32),
        "a.weight_scale": torch.ones(4, 1),
        "a.weight_shape": torch.tensor(sizes),
    }

    assert "a.weight" not in View.of(folder_of(tmp_path / "m", tensors)).weights


def test_identity_is_that_of_every_bit(tmp_path):
    one = View.of(folder_of(tmp_path / "a", {"w": torch.zeros(2, 2)})).weights["w"]
    other = View.of(folder_of(tmp_path / "b", {"w": -torch.zeros(2, 2)})).weights["w"]

    assert one.identity != other.identity
