"""One forged child a claim."""

from __future__ import annotations

import pytest
import torch

from reuselib.network.cutting import Axis, Cut
from reuselib.pruning.proof import cut_out

PLAN = Cut(
    axes={"u": Axis(4, (0, 2))},
    tensors={"h.2.up": ((("u", 1),), ()), "h.2.down": ((), (("u", 1),))},
    blocks={"h": Axis(3, (0, 2))},
)


def parent():
    torch.manual_seed(0)
    return {
        "h.0.up": torch.randn(4, 3),
        "h.1.up": torch.randn(4, 3),
        "h.2.up": torch.randn(4, 3),
        "h.2.down": torch.randn(3, 4),
        "embed": torch.randn(5, 3),
    }


def honest():
    old = parent()
    return {
        "h.0.up": old["h.0.up"],
        "h.1.up": old["h.2.up"][[0, 2]],
        "h.1.down": old["h.2.down"][:, [0, 2]],
        "embed": old["embed"],
    }


def failing(child, old=None, **more):
    return [
        (finding.tensor, finding.detail)
        for finding in cut_out(old or parent(), child, PLAN, **more)
        if finding.holds is not True
    ]


def test_an_honest_child_passes():
    assert failing(honest()) == []


@pytest.mark.parametrize("name", ["h.0.up", "h.1.up", "h.1.down", "embed"])
def test_a_survivor_that_moved_by_a_millionth_fails(name):
    child = honest()
    child[name] = child[name] + 1e-6
    assert [tensor for tensor, _ in failing(child)] == [name]


def test_survivors_in_another_order_fail():
    child = honest()
    child["h.1.up"] = child["h.1.up"].flip(0)
    assert [tensor for tensor, _ in failing(child)] == ["h.1.up"]


def test_the_unit_beside_a_survivor_fails():
    child = honest()
    child["h.1.up"] = parent()["h.2.up"][[0, 3]]
    assert [tensor for tensor, _ in failing(child)] == ["h.1.up"]


def test_the_block_beside_one_that_stays_fails():
    child = honest()
    child["h.1.up"] = parent()["h.1.up"][[0, 2]]
    assert [tensor for tensor, _ in failing(child)] == ["h.1.up"]


def test_another_parent_fails():
    other = {name: value + 1 for name, value in parent().items()}
    assert [tensor for tensor, _ in failing(honest(), other)] == ["h.0.up"]


def test_a_parent_of_another_shape_fails():
    other = {**parent(), "h.2.up": torch.randn(5, 3)}
    ((tensor, detail),) = failing(honest(), other)
    assert tensor == "h.1.up"
    assert "has shape (5, 3)" in detail


def test_a_lost_tensor_and_one_too_many_fail():
    child = honest()
    del child["embed"]
    assert failing(child) == [("embed", "missing in the child")]
    assert failing({**honest(), "h.2.up": torch.zeros(1)}) == [
        ("h.2.up", "not what the cut leaves")
    ]


def test_what_is_new_is_free_but_must_be_there_and_be_new():
    child = {**honest(), "head": torch.zeros(2, 3)}
    assert failing(child, new=["head"]) == []
    assert failing(honest(), new=["head"]) == [("head", "missing in the child")]
    assert [tensor for tensor, _ in failing(honest(), new=["embed"])] == ["embed"]


def test_a_tied_tensor_is_stored_under_one_of_its_names():
    old = {**parent(), "out": parent()["embed"]}
    tied = [["embed", "out"]]
    assert failing(honest(), old, tied=tied) == []
    assert failing(honest(), old) == [("out", "missing in the child")]
    assert failing({**honest(), "out": old["out"]}, tied=tied) == []


def test_a_stored_alias_must_hold_the_same_values():
    child = {**honest(), "out": parent()["embed"] + 1}
    assert [tensor for tensor, _ in failing(child, tied=[["embed", "out"]])] == ["out"]
