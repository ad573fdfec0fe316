from __future__ import annotations

import pytest
import torch

from calibration.layers import inputs, statistics_of, weight
from calibration.networks import AnyTask, batches, layers_of, network
from reuselib.calibration.curvature import output_error
from reuselib.calibration.statistics import as_matrix
from reuselib.calibration.streaming import stream
from reuselib.quantization.awq import awq, protect, protecting_factor
from reuselib.quantization.grid import Grid, fits_pairs, restore, round_to, scales

TASK = AnyTask()
STATISTICS = statistics_of(inputs())


def nearest(dense, grid):
    steps = scales(dense, grid)
    return restore(round_to(dense, steps, grid), steps)


def error_of(factor, grid):
    """Of outputs, by running the inputs through the layer."""
    rounded = nearest(weight() * factor, grid)
    return ((inputs() / factor) @ rounded.T - inputs() @ weight().T).square().mean().item()


def test_the_factor_is_the_best_of_those_tried():
    grid = Grid(4, 8)

    factor = protecting_factor([weight()], STATISTICS, grid)

    tried = []
    for number in range(20):
        sizes = inputs().abs().mean(dim=0) ** (number / 20)
        tried.append(error_of(sizes / (sizes.max() * sizes.min()).sqrt(), grid))
    assert error_of(factor, grid) == pytest.approx(min(tried), rel=1e-3)
    assert min(tried) < 0.9 * tried[0]


def test_a_grid_fine_enough_needs_no_factor_to_be_within_it():
    """The exponent 0 is among those tried, so a factor never makes outputs worse."""
    for seed in range(3):
        dense = weight(seed=seed)
        factor = protecting_factor([dense], STATISTICS, Grid(8))
        scaled = nearest(dense * factor, Grid(8)) / factor
        assert (
            output_error(STATISTICS.gram, dense, scaled)
            <= output_error(STATISTICS.gram, dense, nearest(dense, Grid(8))) * 1.0001
        )


def test_each_group_is_clipped_where_its_outputs_change_least():
    dense, grid = weight(), Grid(4, 8)

    codes, steps = awq(dense, STATISTICS.gram, grid)

    whole = scales(dense, grid)
    values = inputs().unflatten(1, (3, 8))
    for group in range(3):
        part = dense[:, group * 8 : group * 8 + 8]
        tried = []
        for number in range(20):
            step = whole[:, group : group + 1] * (1 - number / 40)
            change = restore(round_to(part, step, grid), step) - part
            tried.append((values[:, group] @ change.T).square().mean(dim=0))
        best = torch.stack(tried).argmin(dim=0)
        torch.testing.assert_close(steps[:, group], whole[:, group] * (1 - best / 40))
    assert codes.equal(round_to(dense, steps, grid))


@pytest.mark.parametrize("grid", [Grid(4), Grid(4, 8), Grid(8)], ids=str)
def test_clipping_helps_each_group_by_itself(grid):
    dense = weight()
    dense[:, 2] *= 4  # one weight a row that is worth clipping

    clipped = restore(*awq(dense, STATISTICS.gram, grid)) - dense

    plain = nearest(dense, grid) - dense
    size = grid.group_size or 24
    for at in range(0, 24, size):
        own = STATISTICS.gram[at : at + size, at : at + size]
        part = slice(at, at + size)
        errors = [(each[:, part] @ own * each[:, part]).sum(dim=1) for each in (clipped, plain)]
        assert (errors[0] <= errors[1] * 1.0001).all()


def test_a_paired_grid_is_kept():
    codes, _ = awq(weight(64), STATISTICS.gram, Grid(8, paired=True))

    assert fits_pairs(codes)


def test_zeros_stay_zero():
    dense = weight()
    dense[:, ::3] = 0

    codes, _ = awq(dense, STATISTICS.gram, Grid(4, 8))

    assert not codes[:, ::3].any()


def test_a_network_is_protected_and_gives_what_it_gave():
    module, rows = network("llama"), batches("llama")
    before = TASK.forward(module, rows[1]).detach()

    for visit in stream(module, TASK, rows, layers_of(module)):
        old = {name: as_matrix(module.get_submodule(name)).clone() for name in visit.layers}
        protected = protect(module, visit, Grid(4, 8))
        assert len(protected.folds) == 4
        for name, statistics in protected.layers.items():
            new = as_matrix(module.get_submodule(name))
            assert output_error(statistics.gram, new, nearest(new, Grid(4, 8))) < 3 * output_error(
                visit.layers[name].gram, old[name], nearest(old[name], Grid(4, 8))
            )

    torch.testing.assert_close(TASK.forward(module, rows[1]), before, rtol=1e-4, atol=1e-4)


def test_statistics_without_products_are_refused():
    from dataclasses import replace

    with pytest.raises(ValueError, match="gram=True"):
        protecting_factor([weight()], replace(STATISTICS, gram=None), Grid(4))
