"""How long a forward pass takes, under a protocol that is written down beside the figure.

Times of a machine that does something else as well are worth nothing, so rounds that disagree give the word
`unstable` in the place of a number; and two models are compared only by calls that alternate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

UNSTABLE = "unstable"
"""Stands for a time that differed too much from round to round."""
_MIN_ROUNDS = 3
_SLOW = 5.0
"""Seconds of one call from which on the fewest rounds are enough."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How times are taken."""

    batch_sizes: tuple[int, ...] = (1, 32)
    """Rows in one call; all test rows if there are fewer."""
    warm_up: int = 2
    """Calls before anything counts."""
    rounds: int = 5
    """Each model has its turn in every round, in another order each time."""
    max_calls: int = 20
    """Calls in one turn, at most."""
    seconds: float = 0.3
    """How long each model may be timed over all batch sizes, unless one call for each round takes longer."""
    attempts: int = 2
    """So often at most times are taken, if they are unstable; the steadiest count."""
    max_spread: float = 0.2
    """Middle half of the rounds' medians, over their median: above this a time is unstable."""


STANDARD = Protocol()
"""What is used unless something else is asked for."""


@dataclass(frozen=True)
class Timing:
    """Times of one model at one batch size."""

    rounds: tuple[tuple[float, ...], ...]
    """Milliseconds of each call, by round."""
    max_spread: float

    @property
    def medians(self) -> tuple[float, ...]:
        """One for each round."""
        return tuple(statistics.median(calls) for calls in self.rounds)

    @property
    def stable(self) -> bool:
        """Whether the rounds agree."""
        return spread(self.medians) <= self.max_spread

    def percentile(self, share: float) -> float | str:
        """Milliseconds within which that share of all calls ended, or `unstable`."""
        if not self.stable:
            return UNSTABLE
        return quantile([call for calls in self.rounds for call in calls], share)


def alternate(
    actions: Sequence[Callable[[], object]], protocol: Protocol = STANDARD
) -> list[Timing]:
    """Time each action, in turns, so that whatever the machine does besides strikes all of them alike.

    Args:
        actions: calls that end when their work is done.
        protocol: how many calls; its budget is for each action, over all its batch sizes.
    """
    best: list[Timing] = []
    for _ in range(protocol.attempts):
        found = _attempt(actions, protocol)
        best = min(best or found, found, key=_unsteadiness)
        if all(each.stable for each in best):
            break
    return best


def _attempt(actions: Sequence[Callable[[], object]], protocol: Protocol) -> list[Timing]:
    warm = [_warm_up(action, protocol.warm_up) for action in actions]
    rounds = _MIN_ROUNDS if max(warm) > _SLOW else protocol.rounds
    budget = protocol.seconds / len(protocol.batch_sizes) / rounds
    num_calls = [max(1, min(protocol.max_calls, int(budget / max(once, 1e-9)))) for once in warm]
    times: list[list[tuple[float, ...]]] = [[] for _ in actions]
    for turn in range(rounds):
        for place in range(len(actions)):
            at = (turn + place) % len(actions)
            times[at].append(tuple(1e3 * _timed(actions[at]) for _ in range(num_calls[at])))
    return [Timing(tuple(each), protocol.max_spread) for each in times]


def faster_by(reference: Timing, other: Timing) -> float | str:
    """How many times faster `other` is than `reference`, which it alternated with: the median over rounds.

    A round that was disturbed strikes both, so this can be stable where the times themselves are not.
    """
    ratios = [one / two for one, two in zip(reference.medians, other.medians, strict=True)]
    return statistics.median(ratios) if spread(ratios) <= reference.max_spread else UNSTABLE


def spread(values: Sequence[float]) -> float:
    """Distance of the quartiles over the median: half of the values lie closer together than this."""
    return (quantile(values, 0.75) - quantile(values, 0.25)) / statistics.median(values)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies, linear between two of them."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _unsteadiness(timings: Sequence[Timing]) -> float:
    return max(spread(each.medians) for each in timings)


def _warm_up(action: Callable[[], object], num_calls: int) -> float:
    """Seconds of the last of the calls that do not count."""
    for _ in range(num_calls - 1):
        action()
    return _timed(action)


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
