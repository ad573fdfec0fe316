from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from reuselib.evidence.closeness import (
    compare_trails,
    compare_weights,
    environment_differences,
    fact_differences,
)
from reuselib.evidence.reproduction import WeightsCompared
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.tensors import save_tensors
from reuselib.lineage.trail import Entry, Trail


def compared(one: dict[str, Any], other: dict[str, Any], folder: Path) -> WeightsCompared:
    places = [folder / name for name in ("one", "other")]
    for place, tensors in zip(places, (one, other), strict=True):
        place.mkdir()
        save_tensors(tensors, place / "model.safetensors")
    first, second = (take_inventory(place) for place in places)
    return compare_weights(places[0], first, places[1], second)


WEIGHT = torch.tensor([[1.0, -2.0], [0.5, 0.0]])


def test_equal_weights(tmp_path):
    found = compared({"a": WEIGHT}, {"a": WEIGHT.clone()}, tmp_path)

    assert found == WeightsCompared(num_tensors=1, num_equal=1)
    assert found.near


@pytest.mark.parametrize(
    ("dtype", "gap", "near"),
    [
        (torch.float32, 1e-4, True),
        (torch.float32, 3e-4, False),
        (torch.float64, 1e-8, True),
        (torch.float64, 1e-6, False),
        (torch.bfloat16, 1 / 64, True),
        (torch.bfloat16, 1 / 8, False),
        (torch.float16, 1 / 512, True),
        (torch.float16, 1 / 64, False),
    ],
)
def test_nearness_is_measured_by_the_largest_value_and_the_type(dtype, gap, near, tmp_path):
    one = WEIGHT.to(dtype)
    other = one.clone()
    other[1, 0] += gap
    found = compared({"a": one, "b": one}, {"a": one, "b": other}, tmp_path)

    assert (found.num_tensors, found.num_equal) == (2, 1)
    assert found.first == found.worst == "b"
    assert found.max_abs == pytest.approx(gap, rel=1e-2)
    assert found.near is near


def test_the_first_and_the_worst_are_told_apart(tmp_path):
    one = {name: WEIGHT for name in "abc"}
    found = compared(one, {"a": WEIGHT, "b": WEIGHT + 1e-6, "c": WEIGHT + 1e-3}, tmp_path)

    assert (found.first, found.worst) == ("b", "c")


@pytest.mark.parametrize(
    "other",
    [
        {"a": WEIGHT.long()},
        {"a": WEIGHT.double()},
        {"a": WEIGHT[:1]},
        {"b": WEIGHT},
        {"a": WEIGHT, "b": WEIGHT},
        {"a": torch.full((2, 2), math.nan)},
        {"a": torch.full((2, 2), math.inf)},
    ],
    ids=["integers", "wider", "shape", "name", "one more", "nan", "infinite"],
)
def test_what_rounding_never_does_is_not_near(other, tmp_path):
    assert not compared({"a": WEIGHT}, other, tmp_path).near


def test_integers_must_be_equal(tmp_path):
    one, other = torch.tensor([100, 7], dtype=torch.int8), torch.tensor([100, 8], dtype=torch.int8)

    assert not compared({"a": one}, {"a": other}, tmp_path).near


def test_zeros_that_moved_are_not_near(tmp_path):
    assert not compared({"a": torch.zeros(3)}, {"a": torch.full((3,), 1e-9)}, tmp_path).near


def test_environments_are_compared_leaf_by_leaf():
    one = {"cpu": {"model": "A", "sets": ["x"]}, "cores": 2, "gone": 1}
    two = {"cpu": {"model": "B", "sets": ["x"]}, "cores": 2, "new": "n"}

    assert environment_differences(one, two) == (
        "cpu.model: recorded A, here B",
        "gone: recorded 1, here nothing",
        "new: recorded nothing, here n",
    )
    assert environment_differences(one, one) == ()
    assert fact_differences({"precision": "bf16"}, {"precision": "fp32", "num_threads": 1}) == (
        "precision: recorded bf16, here fp32",
    )


def trail(*states: str, loss: float = 1.0, rows: str = "r") -> Trail:
    entries = tuple(
        Entry(step=at, state=state, loss=loss, rows=rows) for at, state in enumerate(states, 1)
    )
    return Trail(every=1, num_steps=len(states), num_rows=8, tensors=("a",), entries=entries)


def test_trails_are_compared_up_to_the_first_difference():
    found = compare_trails([trail("a", "b", "c", "d")], [trail("a", "b", "x", "y")])

    assert (found.num_compared, found.last_equal, found.first_different) == (3, 2, 3)
    assert found.losses_near
    assert not found.other_rows
    assert compare_trails([trail("a")], [trail("b", loss=1.01)]).losses_near is False
    assert compare_trails([trail("a")], [trail("b", loss=1.0005)]).losses_near
    assert compare_trails([trail("a", "b")], [trail("a", "c", loss=1.01)]).losses_near is False
    assert compare_trails([trail("a")], [trail("a", rows="q")]).other_rows
    assert compare_trails([trail("a")], [trail("a", "b")]).other_rows
    assert compare_trails([trail("a", "b")], [trail("a", "b")]).first_different is None
