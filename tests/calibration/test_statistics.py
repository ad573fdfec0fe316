from __future__ import annotations

import pytest
import torch
from torch import nn

from calibration.layers import inputs, statistics_of
from calibration.networks import AnyTask
from reuselib.calibration.curvature import output_error
from reuselib.calibration.statistics import as_matrix
from reuselib.calibration.streaming import stream
from reuselib.errors import IncompatibleStep

TASK = AnyTask()


def conv1d(num_out: int, num_in: int) -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return Conv1D(num_out, num_in)


LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (4, 7, 6)),
    "conv1d": (lambda: conv1d(5, 6), (4, 7, 6)),
    "conv2d": (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1, dilation=2), (4, 3, 9, 8)),
    "pointwise": (lambda: nn.Conv2d(3, 5, 1), (4, 3, 9, 8)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_products_tell_how_much_outputs_change(kind):
    """For every type of layer: the error that `output_error` predicts is the one that is seen."""
    torch.manual_seed(0)
    build, shape = LAYERS[kind]
    module = nn.Sequential(build())
    values, task = torch.randn(shape), AnyTask()
    task.forward = lambda module, batch: module(batch["x"])
    statistics = next(stream(module, task, [{"x": values}], ["0"])).layers["0"]
    before, weight = module(values), as_matrix(module[0])
    old = weight.clone()

    weight.add_(torch.randn_like(weight))  # a view: the layer itself changes

    change = module(values) - before
    channels = 1 if "conv2d" in kind or kind == "pointwise" else -1
    seen = change.movedim(channels, -1).flatten(0, -2).square().sum(dim=-1).mean()
    assert output_error(statistics.gram, old, weight) == pytest.approx(seen.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), "a convolution in groups"),
        (nn.Embedding(3, 4), "of type Embedding"),
        (nn.Conv1d(3, 4, 3), "of type Conv1d"),
    ],
)
def test_layers_that_cannot_be_looked_at_are_refused(layer, why):
    with pytest.raises(IncompatibleStep, match=why):
        as_matrix(layer)


def test_a_convolution_that_pads_with_something_else_is_refused():
    module, task = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")), AnyTask()
    task.forward = lambda module, batch: module(batch["x"])

    with pytest.raises(IncompatibleStep, match="'reflect'"):
        next(stream(module, task, [{"x": torch.randn(1, 1, 4, 4)}], ["0"]))


def test_statistics_of_divided_inputs_are_those_of_the_inputs_divided():
    factor = torch.rand(24) + 0.5

    found, expected = statistics_of(inputs()).divided(factor), statistics_of(inputs() / factor)

    assert found.num_tokens == expected.num_tokens
    for name in ("norm", "abs_mean", "abs_max", "gram"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
