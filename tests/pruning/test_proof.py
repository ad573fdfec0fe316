"""One forged child a claim."""

from __future__ import annotations

import json

import pytest
import torch

from reuselib.errors import IntegrityError
from reuselib.network.cutting import Axis, Cut
from reuselib.pruning.proof import Record, as_asked, cut_out

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
        for finding in cut_out(old or parent(), child, Record(cut=PLAN, **more))
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


class TestWhatWasAsked:
    record = Record(
        cut=Cut({"b:units": Axis(4, (0, 2))}, {}, {"dec": Axis(2, (1,))}),
        stacks=[("enc", 3), ("dec", 2)],
    )

    def failing(self, record=None, blocks=(3,), **shares):
        asked = {"heads": None, "ffn": 0.5, "hidden": None, **shares}
        return [f.claim for f in as_asked(record or self.record, asked, blocks) if not f.holds]

    def test_what_was_asked_passes(self):
        assert self.failing() == []
        assert self.failing(ffn=0.6, blocks=(-2,)) == []

    @pytest.mark.parametrize("blocks", [(), (0,), (2,), (3, 4)])
    def test_other_blocks_fail(self, blocks):
        assert self.failing(blocks=blocks) == [
            "the blocks that are left out are those that the configuration names"
        ]

    @pytest.mark.parametrize(
        ("shares", "option"),
        [({"ffn": 0.4}, "ffn"), ({"ffn": None}, "ffn"), ({"heads": 0.5}, "heads")],
    )
    def test_another_share_fails(self, shares, option):
        (claim,) = self.failing(**shares)
        assert claim.startswith(f"{option}: at most")

    @pytest.mark.parametrize(
        "axes",
        [
            {"other": Axis(4, (0,))},
            {"a:groups": Axis(2, (0,))},
            {"a:heads": Axis(4, (0, 1)), "a:groups": Axis(2, (1,))},
            {"a:heads": Axis(4, (0, 1)), "a:groups": Axis(3, (0,))},
        ],
    )
    def test_an_axis_that_no_share_counts_fails(self, axes):
        odd = Record(cut=Cut({**self.record.cut.axes, **axes}))
        heads = 0.5 if "a:heads" in axes else None
        (claim,) = self.failing(odd, blocks=(), heads=heads)
        assert claim.startswith("nothing is left out but")

    def test_key_value_heads_go_with_those_that_they_serve(self):
        axes = {"a:heads": Axis(4, (0, 1)), "a:groups": Axis(2, (0,))}
        assert self.failing(Record(cut=Cut(axes)), blocks=(), ffn=None, heads=0.5) == []

    def test_blocks_of_a_list_that_is_not_counted_fail(self):
        other = Record(cut=Cut(blocks={"more": Axis(2, (1,))}), stacks=[("enc", 3)])
        assert self.failing(other, blocks=(), ffn=None)


class TestRecord:
    record = Record(cut=PLAN, stacks=[("h", 3)], new=("head",), tied=(("embed", "out"),))

    def test_it_survives_json(self):
        assert Record.of_json(json.loads(json.dumps(self.record.to_json()))) == self.record

    @pytest.mark.parametrize(
        "change",
        [
            {"cut": None},
            {"stacks": [["h"]]},
            {"stacks": [["h", True]]},
            {"stacks": {"h": 3}},
            {"new": "head"},
            {"new": [3]},
            {"tied": ["embed"]},
            {"tied": [[None]]},
        ],
    )
    def test_what_is_no_record_is_refused(self, change):
        with pytest.raises(IntegrityError, match=r"BAD_STRUCTURE"):
            Record.of_json({**self.record.to_json(), **change})

    @pytest.mark.parametrize("value", [None, 3, [], {}, {"cut": PLAN.to_json()}])
    def test_something_else_is_refused(self, value):
        with pytest.raises(IntegrityError, match=r"is missing|must be an object"):
            Record.of_json(value)
