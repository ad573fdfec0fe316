from __future__ import annotations

import json
import math

import pytest
import torch

from reuselib.measure.compare import Side, compare, recordable
from reuselib.measure.latency import Timing
from reuselib.measure.probe import Measured


def side(*medians: float, draws=None) -> Side:
    timing = Timing(tuple((each,) for each in medians), 0.2)
    return Side(Measured(draws=draws or {}), {1: timing, 32: timing})


def test_times_in_turns_are_compared_round_by_round():
    found = compare(side(10, 20, 40, 30), side(5, 10, 20, 15), {})

    assert found.speedup == {"speedup": 2.0, "speedup_batch32": 2.0}


def test_times_that_were_not_are_compared_only_if_they_are_steady():
    steady, shaken = side(10, 10, 10), side(5, 10, 20)

    assert compare(steady, side(5, 5, 5), {}, alternated=False).speedup["speedup"] == 2.0
    assert compare(steady, shaken, {}, alternated=False).speedup["speedup"] == "unstable"


def test_a_change_has_an_interval():
    one = torch.linspace(0, 1, 1000, dtype=torch.float64)

    found = compare(side(1, 1, draws={"f1": one}), side(1, 1, draws={"f1": one + 0.5}), {})

    assert found.changes == {"f1": pytest.approx([0.5, 0.5])}


def test_what_is_not_finite_is_left_out_of_the_record():
    told = recordable({"a": 1.0, "b": math.nan, "c": [1, math.inf], "d": {"e": -math.inf}})

    assert told == {"a": 1.0, "c": [1, None], "d": {}}
    json.dumps(told, allow_nan=False)
