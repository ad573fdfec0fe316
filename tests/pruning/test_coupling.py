"""What layers keep of their inputs is what layers keep of their outputs."""

from __future__ import annotations

import torch

from reuselib.pruning.coupling import coupled, uncoupled
from reuselib.pruning.slices import Slices


def weights(**shapes):
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def loose(keep, tensors, parent):
    return list(uncoupled(Slices(keep, tensors, {}), parent))


TWO = weights(a__weight=(4, 3), a__bias=(4,), b__weight=(5, 4))


def test_inputs_are_the_outputs_before():
    keep = {"0": (0, 2), "1": (0, 3)}
    good = {"a.weight": {0: "0"}, "a.bias": {0: "0"}, "b.weight": {1: "0"}}

    assert loose(keep, good, TWO) == []
    assert loose(keep, {**good, "b.weight": {1: "1"}}, TWO) == ["b.weight"]
    assert loose(keep, {name: good[name] for name in ("a.weight", "a.bias")}, TWO) == []


def test_a_bias_that_keeps_others_than_its_weight_is_found():
    slices = Slices(
        {"0": (0, 2), "1": (0, 3)},
        {"a.weight": {0: "0"}, "a.bias": {0: "1"}, "b.weight": {1: "0"}},
        {},
    )

    torn, together = coupled(slices, TWO, ())
    assert (torn.holds, torn.tensor) == (False, "a.bias")
    assert together.holds


def test_flattened_inputs_are_each_channel_a_number_of_times():
    parent = weights(a__weight=(4, 3), b__weight=(5, 12))
    keep = {"0": (1, 2), "1": (3, 4, 5, 6, 7, 8), "2": (3, 4, 5, 6, 7, 9)}

    assert loose(keep, {"a.weight": {0: "0"}, "b.weight": {1: "1"}}, parent) == []
    assert loose(keep, {"a.weight": {0: "0"}, "b.weight": {1: "2"}}, parent) == ["b.weight"]


def test_concatenated_inputs_are_outputs_one_after_another():
    parent = weights(a__weight=(4, 3), c__weight=(2, 3), b__weight=(5, 6))
    keep = {"0": (1, 2), "1": (1, 2, 4, 5), "2": (0, 2, 4, 5)}

    assert loose(keep, {"a.weight": {0: "0"}, "b.weight": {1: "1"}}, parent) == []
    assert loose(keep, {"a.weight": {0: "0"}, "b.weight": {1: "2"}}, parent) == ["b.weight"]


def test_groups_take_the_same_channels_each():
    parent = weights(a__weight=(4, 3), b__weight=(4, 2, 3, 3))
    keep = {"0": (0, 2), "1": (0,), "2": (1,)}

    assert loose(keep, {"a.weight": {0: "0"}, "b.weight": {1: "1"}}, parent) == []
    assert loose(keep, {"a.weight": {0: "0"}, "b.weight": {1: "2"}}, parent) == ["b.weight"]


def test_what_is_recorded_as_taken_apart_is_not_checked_and_told():
    slices = Slices({"0": (0, 2), "1": (0, 3)}, {"a.weight": {0: "0"}, "b.weight": {1: "1"}}, {})

    *_, last = coupled(slices, {k: v for k, v in TWO.items() if k != "a.bias"}, ("b.weight",))

    assert (last.holds, last.tensor) == (None, "b.weight")
