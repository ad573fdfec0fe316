from __future__ import annotations

import pytest
import torch

from reuselib.quantization.grid import Grid, fits_pairs, restore, round_to, scales

WHOLE = [Grid(8), Grid(8, 16), Grid(4), Grid(4, 16)]
GRIDS = [*WHOLE, Grid(8, paired=True)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_no_weight_moves_by_more_than_half_a_step(grid):
    torch.manual_seed(0)
    weight = torch.randn(24, 64) * torch.rand(24, 1).exp()

    steps = scales(weight, grid)
    moved = (restore(round_to(weight, steps, grid), steps) - weight).abs()

    assert (moved.unflatten(-1, (steps.shape[-1], -1)).amax(-1) <= steps / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("grid", WHOLE, ids=str)
def test_codes_lie_on_the_grid_and_use_its_ends(grid):
    weight = torch.randn(24, 64)

    codes = round_to(weight, scales(weight, grid), grid)

    assert codes.dtype == torch.int8
    assert grid.lowest <= codes.min() <= -grid.highest
    assert codes.max() == grid.highest


def test_a_group_has_a_scale_of_its_own():
    weight = torch.tensor([[1.0, -2.0, 100.0, 50.0]])

    assert scales(weight, Grid(8, 2)).equal(torch.tensor([[2 / 127, 100 / 127]]))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_zeros_stay_zeros_even_where_all_are(grid):
    weight = torch.randn(4, 64) * (torch.arange(64) % 2)
    weight[1] = 0
    weight[2] = 1e-42

    steps = scales(weight, grid)
    again = restore(round_to(weight, steps, grid), steps)

    assert steps.isfinite().all()
    assert (again[weight == 0] == 0).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_what_is_on_the_grid_stays_there(grid):
    weight = torch.randn(8, 64)
    steps = scales(weight, grid)
    codes = round_to(weight, steps, grid)

    assert round_to(restore(codes, steps), steps, grid).equal(codes)


def test_a_group_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="48 does not divide 64"):
        scales(torch.zeros(2, 64), Grid(4, 48))


@pytest.mark.parametrize("columns", [64, 63])
def test_paired_codes_leave_room_for_two_products_in_16_bits(columns):
    torch.manual_seed(1)
    weight = torch.randn(200, columns)
    weight[0] = 1.0

    paired = Grid(8, paired=True)
    codes = round_to(weight, scales(weight, paired), paired)

    assert fits_pairs(codes)
    assert not fits_pairs(round_to(weight, scales(weight, Grid(8)), Grid(8)))
    assert 255 * 128 < 2**15


@pytest.mark.parametrize(
    "wrong", [{"bits": 3}, {"bits": 4, "group_size": 0}, {"bits": 4, "paired": True}]
)
def test_grids_that_no_reader_knows_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be|are for"):
        Grid(**wrong)
