from __future__ import annotations

import math

import pytest
import torch

from reuselib.forensics import deltas
from reuselib.forensics.deltas import delta, is_cast, rank_of_change, steps_apart


def normal(*size: int, seed: int = 0, scale: float = 0.02) -> torch.Tensor:
    return scale * torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def low_rank(rows: int, columns: int, rank: int, scale: float) -> torch.Tensor:
    return scale * normal(rows, rank, seed=1, scale=1) @ normal(rank, columns, seed=2, scale=1)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("size", [(64, 64), (300, 40), (40, 300), (500, 400)])
@pytest.mark.parametrize("rank", [1, 8, 16])
def test_the_rank_of_a_low_rank_change_is_exact_in_every_precision(dtype, size, rank):
    stored = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    parent = normal(*size).to(stored)
    child = (parent.float() + low_rank(*size, rank, 0.02)).to(stored)

    assert rank_of_change(parent, child, (dtype, dtype)).value == rank


def test_one_more_rank_is_noticed():
    parent = normal(128, 96)

    assert rank_of_change(parent, parent + low_rank(128, 96, 9, 1e-4), ("F32", "F32")).value == 9


def test_a_change_below_rounding_has_no_rank():
    parent = normal(128, 96)
    child = parent + low_rank(128, 96, 2, 1e-5)

    assert rank_of_change(parent, child, ("F32", "F32")).value == 2
    found = rank_of_change(parent.bfloat16(), child.bfloat16(), ("BF16", "BF16"))
    assert found.value is None or found.value > 2
    assert rank_of_change(parent, child, ("BF16", "F32")).note == "the change is within rounding"


def test_a_high_rank_is_not_counted_out():
    parent = normal(300, 300)

    assert rank_of_change(parent, parent + normal(300, 300, seed=5), ("F32", "F32")) == deltas.Rank(
        None, "more than 64"
    )
    assert rank_of_change(normal(20, 30), normal(20, 30, seed=1), ("F32", "F32")) == deltas.Rank(
        20, "full"
    )


def test_slices_add_up_to_the_whole(monkeypatch):
    """Sizes that no slice divides."""
    one, other = normal(37, 53), normal(37, 53, seed=1)
    other[other.abs() < 0.01] = 0
    whole = delta(one, other), rank_of_change(one, other, ("F32", "F32"))
    monkeypatch.setattr(deltas, "_SLICE", 100)

    parts = delta(one, other), rank_of_change(one, other, ("F32", "F32"))

    assert parts[0].l2 == pytest.approx(whole[0].l2, rel=1e-12)
    assert parts[0].cosine == pytest.approx(whole[0].cosine, rel=1e-12)
    assert parts[0].max_abs == whole[0].max_abs
    assert (parts[0].zeros, parts[0].lost, parts[0].gained, parts[0].same) == (
        whole[0].zeros,
        whole[0].lost,
        whole[0].gained,
        whole[0].same,
    )
    assert parts[1] == whole[1]


def test_the_smallest_weights_are_told_from_others():
    one = torch.tensor([0.1, -0.2, 0.3, -0.4])

    assert delta(one, torch.tensor([0.0, 0.0, 0.3, -0.4])).smallest_lost
    assert not delta(one, torch.tensor([0.0, -0.2, 0.0, -0.4])).smallest_lost
    assert not delta(one, one + 1).smallest_lost


def test_zero_and_infinite_tensors_have_figures_too():
    zero, one = torch.zeros(4), torch.ones(4)

    assert delta(zero, one).relative_l2 == math.inf
    assert delta(zero, zero).relative_l2 == 0
    assert delta(zero, one).cosine == 0
    assert delta(one, torch.tensor([1.0, math.nan, 1, 1])).max_abs == math.inf


def test_a_cast_is_exact_in_either_direction():
    one = normal(10, 10)

    assert is_cast(one, one.bfloat16())
    assert is_cast(one.half(), one)
    assert not is_cast(one, one.bfloat16() * 2)
    assert not is_cast(one, torch.ones(10, 10, dtype=torch.int8))


def test_steps_are_counted_in_each_group():
    one = torch.tensor([[0.0, 1.0, 0.0, 10.0]])
    codes = torch.tensor([[0.0, 1.5, 0.0, 15.0]])

    assert steps_apart(one, codes, torch.tensor([[1.0, 10.0]])) == 0.5
