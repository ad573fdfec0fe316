from __future__ import annotations

import pytest
import torch

from calibration.layers import inputs, statistics_of, weight
from calibration.networks import AnyTask, batches, layers_of, network
from reuselib.calibration.statistics import as_matrix
from reuselib.calibration.streaming import stream
from reuselib.quantization.smoothing import smooth, smoothing_factor

TASK = AnyTask()


def test_the_factor_is_that_of_the_paper():
    weights, statistics = [weight(), weight(8, seed=2)], statistics_of(inputs())

    factor = smoothing_factor(weights, statistics, 0.7)

    largest = torch.cat(weights).abs().amax(dim=0)
    expected = inputs().abs().amax(dim=0) ** 0.7 / largest**0.3
    torch.testing.assert_close(factor, expected)


def test_with_one_half_inputs_and_weights_become_alike():
    statistics = statistics_of(inputs())

    factor = smoothing_factor([weight()], statistics, 0.5)

    torch.testing.assert_close(
        statistics.abs_max / factor, (weight() * factor).abs().amax(dim=0), rtol=1e-4, atol=1e-5
    )


def test_channels_that_are_never_used_get_a_finite_factor():
    values, dense = inputs(), weight()
    values[:, 3], dense[:, 4] = 0, 0

    factor = smoothing_factor([dense], statistics_of(values), 0.5)

    assert factor.isfinite().all()
    assert (factor > 0).all()


def test_a_layer_with_outliers_is_rounded_better_afterwards():
    """Per-row 8-bit weights and per-token 8-bit inputs, done by hand."""

    def rounded(values):
        step = values.abs().amax(dim=-1, keepdim=True) / 127
        return (values / step).round() * step

    values, dense = inputs(), weight()
    values[:, 5] *= 40
    factor = smoothing_factor([dense], statistics_of(values), 0.5)

    exact = values @ dense.T
    plain = (rounded(values) @ rounded(dense).T - exact).square().mean()
    smoothed = (rounded(values / factor) @ rounded(dense * factor).T - exact).square().mean()

    assert smoothed < 0.5 * plain


def test_a_network_is_smoothed_and_gives_what_it_gave():
    module, rows = network("llama"), batches("llama")
    before = TASK.forward(module, rows[1]).detach()

    for visit in stream(module, TASK, rows, layers_of(module), gram=False):
        smoothed = smooth(module, visit, 0.5)
        assert len(smoothed.folds) == 4
        name = f"{visit.block}.mlp.down_proj"
        largest = as_matrix(module.get_submodule(name)).abs().amax(dim=0)
        torch.testing.assert_close(smoothed.layers[name].abs_max, largest, rtol=1e-3, atol=1e-4)

    torch.testing.assert_close(TASK.forward(module, rows[1]), before, rtol=1e-4, atol=1e-4)


def test_an_alpha_beyond_its_range_is_refused():
    module = network("bert")
    visit = next(stream(module, TASK, batches("bert"), layers_of(module)))

    with pytest.raises(ValueError, match="between 0 and 1"):
        smooth(module, visit, 1.5)
