from __future__ import annotations

import pytest
import torch

from calibration.layers import inputs, statistics_of, weight
from reuselib.pruning.wanda import wanda

NORM = statistics_of(inputs()).norm


def test_each_row_keeps_its_largest_products_of_weight_and_input():
    kept = wanda(weight(), NORM, sparsity=0.5)

    scores = weight().abs() * inputs().norm(dim=0)
    for row, score in zip(kept, scores, strict=True):
        assert set(row.nonzero().flatten().tolist()) == set(score.topk(12).indices.tolist())


def test_each_group_keeps_its_largest():
    kept = wanda(weight(), NORM, pattern=(2, 4)).view(16, 6, 4)

    scores = (weight().abs() * NORM).view(16, 6, 4)
    assert (kept.sum(dim=2) == 2).all()
    assert (
        scores.masked_fill(~kept, torch.inf).amin(2) > scores.masked_fill(kept, 0).amax(2)
    ).all()


@pytest.mark.parametrize("sparsity", [0.01, 0.1, 1 / 3, 0.777, 0.99])
def test_sparsity_is_exact_to_one_weight_and_rows_differ_by_one(sparsity):
    kept = wanda(weight(), NORM, sparsity=sparsity)

    zeros = (~kept).sum(dim=1)
    assert int(zeros.sum()) == round(sparsity * 16 * 24)
    assert zeros.max() - zeros.min() <= 1


def test_of_equals_the_left_ones_go():
    kept = wanda(torch.ones(2, 8), torch.ones(8), sparsity=0.25)

    assert kept.tolist() == [[False] * 2 + [True] * 6] * 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "either"),
        ({"sparsity": 0.5, "pattern": (2, 4)}, "either"),
        ({"sparsity": 0.0}, "between 0 and 1"),
        ({"pattern": (2, 7)}, "does not divide 24"),
    ],
)
def test_bad_requests_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        wanda(weight(), NORM, **options)
