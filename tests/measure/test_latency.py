"""No time is asserted: clocks are made up."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from reuselib.measure import latency
from reuselib.measure.latency import Protocol, Timing, alternate, faster_by, quantile, spread

PROTOCOL = Protocol(warm_up=2, rounds=4, max_calls=3, seconds=1.0)
STEADY, SHAKEN = [0.01] * 6, [0.01, 0.01, 0.01, 0.03, 0.09, 0.01]


@pytest.fixture
def clock(monkeypatch):
    """Each action says how long it takes; the clock believes it."""

    class Clock:
        now = 0.0

        def takes(self, name, seconds, log):
            times = iter(seconds) if isinstance(seconds, list) else None

            def action():
                log.append(name)
                self.now += seconds if times is None else next(times)

            return action

    made = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", lambda: made.now)
    return made


def test_everybody_has_a_turn_in_each_round_in_another_order(clock):
    log = []

    timings = alternate([clock.takes("a", 0.04, log), clock.takes("b", 0.04, log)], PROTOCOL)

    warm, turns = log[:4], log[4:]
    assert warm == ["a", "a", "b", "b"]
    assert turns == [*"aaabbb", *"bbbaaa"] * 2
    assert [len(each.rounds) for each in timings] == [4, 4]
    assert all(len(calls) == 3 for each in timings for calls in each.rounds)
    assert timings[0].rounds[0] == pytest.approx((40, 40, 40))


def test_slow_models_are_called_less_often(clock):
    log = []

    alternate([clock.takes("slow", 0.3, log), clock.takes("fast", 0.001, log)], PROTOCOL)

    assert (log.count("slow"), log.count("fast")) == (2 + 4, 2 + 4 * 3)


def test_very_slow_models_have_the_fewest_rounds(clock):
    log = []

    alternate([clock.takes("a", 60.0, log)], PROTOCOL)

    assert len(log) == 2 + 3


def test_percentiles_are_those_of_all_calls(clock):
    times = [0.0, 0.0, 10, 11, 10, 11, 10, 11, 10, 12]
    log = []
    protocol = Protocol(rounds=4, max_calls=2, seconds=10**6)
    [timing] = alternate([clock.takes("a", [each / 1e3 for each in times], log)], protocol)

    assert timing.stable
    assert timing.percentile(0.5) == pytest.approx(np.percentile(times[2:], 50))
    assert timing.percentile(0.95) == pytest.approx(np.percentile(times[2:], 95))


@pytest.mark.parametrize(
    ("times", "num_calls", "stable"),
    [
        (STEADY, 6, True),
        (SHAKEN + STEADY, 12, True),
        (SHAKEN + SHAKEN + STEADY, 12, False),
    ],
)
def test_unstable_times_are_taken_again_but_not_for_ever(clock, times, num_calls, stable):
    log = []
    protocol = Protocol(rounds=4, max_calls=1, attempts=2)

    [timing] = alternate([clock.takes("a", times, log)], protocol)

    assert (len(log), timing.stable) == (num_calls, stable)


def test_the_steadiest_attempt_counts(clock):
    worse = [0.01, 0.01, 0.01, 0.5, 0.9, 0.01]

    [timing] = alternate(
        [clock.takes("a", SHAKEN + worse, [])], Protocol(rounds=4, max_calls=1, attempts=2)
    )

    assert max(timing.medians) == pytest.approx(90)


def timing(*medians: float) -> Timing:
    return Timing(tuple((each,) for each in medians), max_spread=0.2)


def test_rounds_that_disagree_give_no_number():
    assert timing(10, 10, 10, 10, 50).percentile(0.5) == 10  # one disturbed round is borne
    assert timing(10, 10, 15, 15, 30).percentile(0.5) == "unstable"
    assert timing(10, 10, 15, 15, 30).percentile(0.95) == "unstable"


def test_a_ratio_is_taken_round_by_round():
    """What strikes both models alike does no harm to it."""
    one, other = timing(10, 20, 40, 11, 30), timing(5, 10, 20, 5.5, 15)

    assert not one.stable
    assert faster_by(one, other) == pytest.approx(2.0)
    assert faster_by(one, timing(5, 20, 10, 11, 3)) == "unstable"


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.9, 0.95, 1])
def test_quantiles_are_linear_as_those_of_numpy(share):
    values = [3.0, 1.0, 7.0, 4.0]

    assert quantile(values, share) == pytest.approx(np.quantile(values, share))
    assert spread(values) == pytest.approx(
        np.subtract(*np.quantile(values, [0.75, 0.25])) / statistics.median(values)
    )
