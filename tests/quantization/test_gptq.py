from __future__ import annotations

import pytest
import torch

from calibration.layers import completed, damped, inputs, statistics_of, weight
from reuselib.calibration.curvature import output_error
from reuselib.errors import TrainingError
from reuselib.quantization.gptq import gptq
from reuselib.quantization.grid import Grid, fits_pairs, restore, round_to, scales

GRAM = statistics_of(inputs()).gram
WIDE = statistics_of(inputs(288, 800)).gram


def dense_gptq(dense, gram, grid, order=None):
    """GPTQ by its definition: each column rounded after a least-squares problem solved from scratch."""
    order = torch.arange(dense.shape[1]) if order is None else order
    size = dense.shape[1] // grid.num_groups(dense.shape[1])
    static = None if order.equal(torch.arange(dense.shape[1])) else scales(dense, grid)
    dense, hessian = dense[:, order], damped(gram, 0.01)[order][:, order]
    settled, codes, steps = torch.zeros_like(dense), torch.zeros_like(dense), scales(dense, grid)
    for at in range(dense.shape[1]):
        rest = completed(dense, settled, hessian, at)
        if static is None and at % size == 0:
            steps[:, at // size] = scales(rest[:, :size], Grid(grid.bits))[:, 0]
        step = steps[:, at // size] if static is None else static[:, order[at] // size]
        codes[:, at] = round_to(rest[:, :1], step[:, None], grid)[:, 0]
        settled[:, at] = codes[:, at] * step
    back = order.argsort()
    return codes[:, back].to(torch.int8), steps if static is None else static


@pytest.mark.parametrize("grid", [Grid(8), Grid(4), Grid(4, 8), Grid(4, 6)], ids=str)
def test_codes_are_those_of_the_definition(grid):
    codes, steps = gptq(weight(), GRAM, grid, clip=False)

    expected, expected_steps = dense_gptq(weight(), GRAM, grid)
    assert codes.equal(expected)
    torch.testing.assert_close(steps, expected_steps, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("grid", [Grid(4), Grid(4, 8)], ids=str)
def test_the_order_of_the_largest_inputs_is_that_of_the_definition(grid):
    codes, steps = gptq(weight(), GRAM, grid, act_order=True, clip=False)

    order = GRAM.diagonal().argsort(descending=True)
    expected, expected_steps = dense_gptq(weight(), GRAM, grid, order)
    assert codes.equal(expected)
    assert steps.equal(expected_steps)


@pytest.mark.parametrize("grid", [Grid(4, 96), Grid(4, 32), Grid(4)], ids=str)
def test_blocks_and_groups_that_do_not_end_together_change_nothing(grid):
    codes, _ = gptq(weight(4, 288), WIDE, grid, clip=False)

    expected, _ = dense_gptq(weight(4, 288), WIDE, grid)
    # a value halfway between two codes may fall to either side
    assert (codes != expected).float().mean() < 0.01
    assert (codes - expected).abs().max() <= 1


@pytest.mark.parametrize("act_order", [False, True])
def test_outputs_change_less_than_by_rounding_alone(act_order):
    grid, dense = Grid(4, 8), weight()
    plain = restore(round_to(dense, scales(dense, grid), grid), scales(dense, grid))

    rounded = restore(*gptq(dense, GRAM, grid, act_order=act_order))

    assert output_error(GRAM, dense, rounded) < 0.7 * output_error(GRAM, dense, plain)


@pytest.mark.parametrize("act_order", [False, True])
def test_zeros_stay_zero(act_order):
    dense = weight()
    dense[:, ::2] = 0

    codes, _ = gptq(dense, GRAM, Grid(4, 8), act_order=act_order)

    assert not codes[:, ::2].any()
    assert codes[:, 1::2].any()


@pytest.mark.parametrize("act_order", [False, True])
def test_a_paired_grid_is_kept(act_order):
    grid = Grid(8, paired=True)
    dense = weight(64, 23)  # the last column has no neighbour

    codes, steps = gptq(dense, GRAM[:23, :23], grid, act_order=act_order)

    assert fits_pairs(codes)
    rounded = restore(round_to(dense, steps, grid), steps)
    assert output_error(GRAM[:23, :23], dense, restore(codes, steps)) < output_error(
        GRAM[:23, :23], dense, rounded
    )


@pytest.mark.parametrize("act_order", [False, True])
def test_scales_are_clipped_where_errors_cost_least(act_order):
    """The first group has seen no corrections yet, so that its scales follow from a search by hand."""
    dense, grid = weight(), Grid(4, 8)
    dense[:, 2] *= 3  # one weight a row that is worth clipping
    order = torch.arange(24)
    if act_order:
        order = GRAM.diagonal().argsort(descending=True)
    hessian = damped(GRAM, 0.01)[order][:, order]
    factor = torch.linalg.cholesky(hessian.inverse(), upper=True)
    costs = (1 / factor.diagonal().square())[order.argsort()][:8]

    _, steps = gptq(dense, GRAM, grid, act_order=act_order)

    whole, tried = scales(dense, grid)[:, :1], []
    for number in range(20):
        step = whole * (1 - number / 40)
        change = restore(round_to(dense[:, :8], step, grid), step) - dense[:, :8]
        tried.append((change.double().square() * costs).sum(dim=1))
    best = torch.stack(tried).argmin(dim=0)
    torch.testing.assert_close(steps[:, 0], whole[:, 0] * (1 - best / 40))
    assert best.max() > 0


def test_the_weight_is_not_changed():
    dense = weight()

    gptq(dense, GRAM, Grid(4, 8))

    assert dense.equal(weight())


def test_inputs_that_are_all_zero_leave_plain_rounding():
    codes, steps = gptq(weight(), torch.zeros(24, 24), Grid(8), clip=False)

    assert steps.equal(scales(weight(), Grid(8)))
    assert codes.equal(round_to(weight(), steps, Grid(8)))


def test_a_group_that_does_not_divide_and_a_wrong_damping_are_refused():
    with pytest.raises(ValueError, match="does not divide 24 columns"):
        gptq(weight(), GRAM, Grid(4, 7))
    with pytest.raises(ValueError, match="damping must be above 0"):
        gptq(weight(), GRAM, Grid(4), damping=0)


def test_a_matrix_that_is_none_of_products_is_refused():
    with pytest.raises(TrainingError, match="calibrate with more rows"):
        gptq(weight(), -GRAM, Grid(4))
