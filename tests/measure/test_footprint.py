"""What a training takes, against counts by hand."""

from __future__ import annotations

import torch
from torch import nn

from reuselib.measure.footprint import Footprint, Lesson, of_training
from reuselib.training.plan import FitPlan

WIDTH, WIDE = 8, 4096


def footprint(*num_rows: int) -> Footprint:
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(WIDTH, WIDE), nn.GELU(), nn.Linear(WIDE, WIDTH))
    lesson = Lesson(
        plan=FitPlan(),
        batches=[{"x": torch.zeros(number, WIDTH)} for number in num_rows],
        loss=lambda module, batch: module(batch["x"]).sum(),
    )
    return of_training(net, lesson, torch.device("cpu"))


def test_moments_are_there_in_the_way_forward_and_gradients_from_the_second_micro_batch_on():
    learned = 4 * (2 * WIDTH * WIDE + WIDE + WIDTH)
    activation = 4 * 1000 * WIDE

    # the inputs and outputs of GELU, when there are moments but no gradients
    assert footprint(1000).peak.total >= 2 * learned + 2 * activation
    gained = footprint(1000, 1000).peak.total - footprint(1000).peak.total
    assert 0.4 * learned <= gained <= 1.1 * learned + 4 * 1000 * WIDTH


def test_more_micro_batches_take_no_more_than_their_inputs():
    two, five = footprint(500, 1000), footprint(500, 1000, 10, 300, 7)

    assert five.peak.total - two.peak.total <= 4 * WIDTH * (10 + 300 + 7)
