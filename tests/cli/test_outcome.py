from __future__ import annotations

import sys

from reuselib.cli import outcome
from reuselib.cli.figures import told
from reuselib.model.figures import Figures


def test_the_next_command_can_be_typed_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/reuselib", "run"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert outcome.program() == ".venv/bin/reuselib"

    monkeypatch.setattr(sys, "argv", ["python", "-m", "reuselib"])
    assert outcome.program() == "reuselib"


def measured(before, after, **other) -> Figures:
    names = ("latency_p50", "latency_p50_batch32")
    return Figures(
        cost_before=dict(zip(names, before, strict=True)),
        cost=dict(zip(names, after, strict=True)),
        **other,
    )


def in_turns(speedup, dir_hash="1" * 64, **other) -> Figures:
    origin = {"dir_hash": dir_hash, "speedup": {"speedup": speedup}, "in_turns": True}
    return measured(other.get("before", (1.0, 1.0)), other.get("after", (1.0, 1.0)), origin=origin)


def test_a_slower_child_is_never_silent():
    told = list(outcome._slower([("lora", measured((10.0, 100.0), (12.0, 150.0)))]))

    assert told == ["lora: slower than the model before it, 1.50 times the time for 32 rows"]


def test_times_in_turns_with_the_origin_decide_where_there_are_some():
    """The machine was busy while the second child was timed alone; against the origin it is faster still."""
    busy = {"before": (1.0, 1.0), "after": (3.0, 1.0)}

    assert not list(
        outcome._slower([("prune", in_turns(1.5)), ("quantize", in_turns(2.0, **busy))])
    )
    assert list(outcome._slower([("prune", in_turns(1.5)), ("quantize", in_turns(1.2))])) == [
        "quantize: slower than the model before it, 1.25 times the time for one row"
    ]
    assert list(outcome._slower([("quantize", in_turns(0.5))])) == [
        "quantize: slower than the model before it, 2.00 times the time for one row"
    ]


def test_another_origin_is_no_measure():
    told = outcome._slower([("prune", in_turns(3.0, "2" * 64)), ("quantize", in_turns(1.2))])

    assert not list(told)


def test_times_that_mean_nothing_are_told_once():
    shaken = measured((10.0, 100.0), ("unstable", "unstable"))

    told = list(outcome._slower([("lora", shaken), ("merge", shaken)]))

    assert len(told) == 1
    assert told[0].startswith("unstable: ")


def test_a_model_that_was_not_timed_is_not_slower():
    assert not list(outcome._slower([("merge", Figures(cost={"num_bytes": 9}))]))


def test_the_class_that_lost_most_is_named():
    rows = [
        {"name": "a", "rows": 9, "before": 0.5, "after": 0.9},
        {"name": "b", "rows": 9, "before": 0.9, "after": 0.6},
        {"name": "c", "rows": 2, "before": 1.0, "after": 0.0},
    ]

    assert outcome.worst_class(Figures(drift={"classes": rows})) == "b 0.90 -> 0.60"
    assert outcome.worst_class(Figures()) == "-"


def test_figures_in_a_few_lines():
    figures = Figures(
        metric="accuracy",
        before={"accuracy": 0.8},
        after={"accuracy": 0.9},
        cost={"num_parameters": 22e6, "num_bytes": 9e7, "flops": 1e9, "latency_p50": 4.0},
        drift={"agreement": 0.95},
        origin={"name": "base", "speedup": {"speedup": 2.5}},
    )

    assert list(told(figures)) == [
        "accuracy 0.800 -> 0.900 in the last step",
        "22 M parameters, 90 MB, 1 G FLOPs a row, 4 ms a row",
        "same answer as the model before on 0.950 of the test rows",
        "2.50x as fast for one row as base",
    ]
    assert list(told(Figures())) == []
