from __future__ import annotations

import pytest
import torch

from reuselib.pruning.masks import (
    PATTERNS,
    Quota,
    num_too_full,
    num_zeros,
    smallest,
    smallest_of_each,
)


@pytest.mark.parametrize("sparsity", [0.01, 0.3, 0.5, 0.77, 0.999])
@pytest.mark.parametrize("shape", [(7, 13), (1, 1), (3, 5, 2, 2), (64,)])
def test_a_mask_is_exact_to_one_weight(sparsity, shape):
    torch.manual_seed(0)
    scores = torch.rand(shape)
    number = num_zeros(scores.numel(), sparsity)

    mask = smallest(scores, number)

    assert mask.shape == scores.shape
    assert int(mask.sum()) == number
    assert abs(number - sparsity * scores.numel()) <= 0.5
    if 0 < number < scores.numel():
        assert scores[mask].max() <= scores[~mask].min()


def test_of_equal_scores_the_first_go():
    mask = smallest(torch.tensor([[2.0, 1.0, 2.0], [2.0, 1.0, 2.0]]), 4)
    assert mask.tolist() == [[True, True, True], [False, True, False]]
    assert int(smallest(torch.zeros(5, 5), 12).sum()) == 12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_best_of_each_group_stay(pattern):
    torch.manual_seed(0)
    kept, size = PATTERNS[pattern]
    scores = torch.rand(6, 16)

    mask = smallest_of_each(scores, pattern)

    for row, gone in zip(scores.reshape(-1, size), mask.reshape(-1, size), strict=True):
        assert sorted(row[~gone].tolist()) == sorted(row.tolist())[size - kept :]


def test_a_group_of_equals_still_loses_exactly_half():
    assert smallest_of_each(torch.ones(1, 8), "2:4").tolist() == [[True, True, False, False] * 2]


def test_groups_that_hold_too_much_are_counted():
    weight = torch.tensor([[1.0, 0, 0, 2, 3, 4, 5, 0]])
    assert num_too_full(weight, "2:4") == 1
    assert num_too_full(weight, "4:8") == 1
    assert num_too_full(weight * torch.tensor([1, 1, 1, 1, 0, 1, 1, 1]), "4:8") == 0


@pytest.mark.parametrize(
    ("quota", "before", "bounds"),
    [
        (Quota(sparsity=0.5), 0, (8, 8)),
        (Quota(sparsity=0.5), 3, (8, 11)),
        (Quota(sparsity=0.5), 12, (12, 16)),
        (Quota(pattern="2:4"), 0, (8, 8)),
        (Quota(pattern="4:8"), 10, (10, 16)),
    ],
)
def test_zeros_there_before_may_lie_where_none_was_to_go(quota, before, bounds):
    assert quota.bounds(16, before) == bounds


def test_a_quota_is_taken_from_the_smallest_weights_of_either_sign():
    matrix = torch.tensor([[-4.0, 1.0, -2.0, 3.0], [-8.0, 7.0, 6.0, -5.0]])

    assert Quota(sparsity=0.25).smallest(matrix).tolist() == [
        [False, True, True, False],
        [False] * 4,
    ]
    assert Quota(pattern="2:4").smallest(matrix).tolist() == [
        [False, True, True, False],
        [False, False, True, True],
    ]
