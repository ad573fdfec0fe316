from __future__ import annotations

import pytest

from reuselib.measure.gates import Gate, faults, judge, names
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.text_classification import TextClassification

TASK = TextClassification()
CHILD = {"accuracy": 0.88, "loss": 0.5, "num_bytes": 25, "latency_p50": 4.0, "kl": 0.02, "ece": 0.1}
ORIGIN = {"accuracy": 0.9, "loss": 0.4, "num_bytes": 100, "latency_p50": 10.0, "ece": 0.05}


def verdict(gate, *, child=CHILD, origin=ORIGIN, ratios=None, task=TASK):
    [found] = judge([gate], child, origin, ratios or {}, task)
    return found


@pytest.mark.parametrize(
    ("figure", "bound", "passing", "failing", "measured"),
    [
        ("accuracy", "min", 0.88, 0.881, 0.88),
        ("kl", "max", 0.02, 0.019, 0.02),
        ("accuracy", "max_drop", 0.021, 0.019, 0.02),
        ("num_bytes", "max_ratio", 0.25, 0.249, 0.25),
        ("latency_p50", "max_ratio", 0.4, 0.39, 0.4),
        # of a loss, a time or a calibration error, more is worse
        ("loss", "max_drop", 0.11, 0.09, 0.1),
        ("ece", "max_drop", 0.051, 0.049, 0.05),
        ("latency_p50", "max_drop", -6.0, -6.1, -6.0),
    ],
)
def test_a_bound_holds_or_not(figure, bound, passing, failing, measured):
    good = verdict(Gate(figure=figure, **{bound: passing}))
    bad = verdict(Gate(figure=figure, **{bound: failing}))

    assert (good.passed, bad.passed) == (True, False)
    assert good.measured == pytest.approx(measured)
    assert figure in bad.told
    assert f"`{bound}` wants" in bad.told


def test_a_perplexity_that_grows_has_dropped():
    gate = Gate(figure="perplexity", max_drop=1.0)

    found = verdict(gate, child={"perplexity": 12}, origin={"perplexity": 10}, task=CausalLM())

    assert (found.passed, found.measured) == (False, 2)


@pytest.mark.parametrize(("quality", "passed"), [({"ece": 0.1}, False), ({}, True)])
def test_a_worst_slice_is_a_share_or_a_loss(quality, passed):
    """A share of right answers that falls has dropped; a loss that falls has not."""
    gate = Gate(figure="worst_slice", max_drop=0.1)

    found = verdict(gate, child={"worst_slice": 0.5, **quality}, origin={"worst_slice": 0.8})

    assert found.passed == passed


def test_every_bound_of_a_gate_is_judged():
    gate = Gate(figure="accuracy", min=0.8, max_drop=0.01)

    found = judge([gate], CHILD, ORIGIN, {}, TASK)

    assert [(each.bound, each.passed) for each in found] == [("min", True), ("max_drop", False)]


def test_a_ratio_that_was_taken_in_turns_comes_before_two_times():
    gate = Gate(figure="latency_p50", max_ratio=0.45)
    unsteady = {**CHILD, "latency_p50": "unstable"}

    assert not verdict(gate, ratios={"latency_p50": 0.5}).passed
    assert verdict(gate, child=unsteady, ratios={"latency_p50": 0.42}).passed


@pytest.mark.parametrize(
    "gate", [Gate(figure="latency_p50", max=9), Gate(figure="latency_p50", max_ratio=9)]
)
def test_what_is_unstable_never_passes(gate):
    found = verdict(gate, child={"latency_p50": "unstable"})

    assert (found.passed, found.measured) == (False, "unstable")
    assert "too busy" in found.told


@pytest.mark.parametrize(("child", "origin"), [({}, ORIGIN), (CHILD, {})], ids=["child", "origin"])
def test_what_was_not_measured_never_passes(child, origin):
    found = verdict(Gate(figure="accuracy", max_drop=1.0), child=child, origin=origin)

    assert (found.passed, found.measured) == (False, None)
    assert "was not measured" in found.told


def test_nothing_is_no_reference():
    found = verdict(Gate(figure="ece", max_ratio=2), origin={"ece": 0.0})

    assert not found.passed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no bound"),
        ({"min": "0.8"}, "expected a number"),
        ({"min": True}, "expected a number"),
        ({"max": float("nan")}, "finite"),
        ({"max_ratio": 0}, "more than 0"),
        ({"min": 2, "max": 1}, "nothing can pass"),
    ],
)
def test_a_gate_that_says_nothing_sensible_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Gate(figure="accuracy", **fields)


@pytest.mark.parametrize(
    ("figure", "bound", "message"),
    [
        ("acuracy", "min", "did you mean `accuracy`?"),
        ("perplexity", "max", "no such figure"),
        ("kl", "max_drop", "use `min` or `max`"),
        ("peak_bytes", "max_ratio", "use `min` or `max`"),
    ],
)
def test_a_figure_that_cannot_be_had_is_a_fault(figure, bound, message):
    gates = [Gate(figure="accuracy", min=0.1), Gate(figure=figure, **{bound: 0.5})]

    [(index, named, told)] = faults(gates, TASK, has_rows=True)

    assert (index, named) == (1, figure)
    assert message in told


def test_without_rows_only_what_can_be_counted_has_gates():
    gates = [Gate(figure=name, max=1) for name in ("accuracy", "flops", "num_bytes", "seconds")]

    assert [name for _, name, _ in faults(gates, TASK, has_rows=False)] == ["accuracy", "flops"]


def test_figures_of_adapters_are_known_by_their_prefix():
    assert not list(faults([Gate(figure="step_train_loss", max=1)], TASK, has_rows=True))


def test_each_figure_has_one_name():
    known = names(TASK)

    assert len(set(known)) == len(known)
