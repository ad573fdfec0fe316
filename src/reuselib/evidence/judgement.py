"""From what was made again to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.evidence.closeness import compare_trails, compare_weights
from reuselib.evidence.reproduction import Reproduction, WindowCompared
from reuselib.lineage import canonical
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.report import Problem

if TYPE_CHECKING:
    from reuselib.evidence.recorded import Recorded
    from reuselib.evidence.reproduction import Verdict
    from reuselib.evidence.windows import Chosen
    from reuselib.lineage.definition import Internal
    from reuselib.lineage.trail import Trail

_OF_THE_RUN = ("derivationId", "dtype", "device", "worldSize", "determinism", "facts")
"""What the run settled that says nothing about the network."""
_WHO = "who made it: `verify` looks at signatures"
_ROWS = "whether the recorded rows are right: only that these are the recorded ones"


@dataclass(frozen=True)
class Made:
    """What came of a step that was done again."""

    folder: Path
    """Holds the payload."""
    internal: Internal
    """What the run settled."""
    trails: Sequence[Trail]
    measure: Callable[[], Mapping[str, float]]
    """The metrics on the test rows; none if there are no rows."""


def judge_whole(recorded: Recorded, made: Made, excuses: Sequence[str]) -> Reproduction:
    """Compare a whole step. Only what differs between machines excuses that weights do.

    Args:
        recorded: the model.
        made: what came out now.
        excuses: how machine, software or device differ from those recorded.
    """
    inventory = take_inventory(made.folder)
    weights = compare_weights(recorded.folder, recorded.inventory, made.folder, inventory)
    trails = compare_trails(recorded.trails, made.trails)
    same = weights.num_equal == weights.num_tensors
    files = _odd_files(recorded.inventory.files, inventory.files, weights=same)
    result = replace(
        recorded.unknown(),
        weights=weights,
        files=files,
        first_step=trails.first_different,
        last_equal_step=trails.last_equal,
        environment=tuple(excuses),
        history=recorded.before,
        unchecked=(*_not_the_rest(recorded), _ROWS, _WHO),
    )
    if same:
        return _judge_record(result, recorded, made, trails.first_different)
    if not excuses:
        return _but(
            result,
            "differs",
            "this machine and software are the recorded ones, and give other weights",
        )
    if weights.near:
        return _but(
            result,
            "within tolerance",
            "the weights differ by no more than rounding may on another machine",
        )
    return _judge_metrics(result, recorded, made)


def _judge_record(
    result: Reproduction, recorded: Recorded, made: Made, first_step: int | None
) -> Reproduction:
    """The weights are the same; is what is said about them?"""
    if first_step is not None:
        problem = Problem(
            "BAD_TRAIL", f"the weights are these, but step {first_step} was never in that state"
        )
        return replace(
            _but(result, "differs", "the recorded trail leads elsewhere"), problems=(problem,)
        )
    odd = _odd_settings(recorded.internal, made.internal)
    if (odd or result.files) and not result.environment:
        what = ", ".join((*odd, *result.files))
        return _but(result, "differs", f"the weights are the same, but not {what}")
    return replace(result, verdict="bit-equal")


def _judge_metrics(result: Reproduction, recorded: Recorded, made: Made) -> Reproduction:
    """Whether a model with other weights is as good, by the metric that decides."""
    figures = recorded.figures
    before, name = figures.after, figures.metric
    after = made.measure() if name in before else {}
    if name not in after:
        why = "the weights differ by more than rounding explains, and there is no metric to compare"
        return _but(result, "differs", why)
    measured = {each: (before[each], after[each]) for each in before if each in after}
    result = replace(result, metrics=measured)
    low, high = _interval(figures.intervals.get("after"), name) or (before[name], before[name])
    if low <= after[name] <= high:
        why = f"the weights differ, but {name} is within the recorded interval from {low:.4g} to {high:.4g}"
        return _but(result, "metric-equal", why)
    why = f"the weights differ, and {name} is outside of the recorded interval from {low:.4g} to {high:.4g}"
    return _but(result, "differs", why)


def judge_window(
    recorded: Recorded, chosen: Chosen, again: Trail, rows: frozenset[int], excuses: Sequence[str]
) -> Reproduction:
    """Compare a part of a training with its trail.

    Args:
        recorded: the model.
        chosen: the part.
        again: the trail of the replay.
        rows: numbers of those that were seen.
        excuses: as in `judge_whole`.
    """
    trail = recorded.trails[0]
    found = compare_trails([trail], [again])
    window = WindowCompared(
        which="from the beginning" if chosen.start is None else "from a kept state",
        start=0 if chosen.start is None else chosen.start.step,
        stop=chosen.stop,
        num_steps=trail.num_steps,
        num_compared=found.num_compared,
        num_seen=len(rows),
        num_rows=trail.num_rows,
    )
    result = replace(
        recorded.unknown(),
        window=window,
        first_step=found.first_different,
        last_equal_step=found.last_equal,
        environment=tuple(excuses),
        history=recorded.before,
        unchecked=(*_not_in_window(recorded, window), *_not_the_rest(recorded), _ROWS, _WHO),
    )
    if recorded.ends_in_trail is False:
        problem = Problem(
            "BAD_TRAIL", "the weights in the folder are not those that the trail ends in"
        )
        result = replace(result, problems=(problem,))
        return _but(result, "differs", "the trail belongs to other weights")
    if found.first_different is None:
        return replace(result, verdict="as recorded")
    if found.other_rows:
        return _but(result, "differs", "batches were made of other rows")
    if not excuses:
        return _but(
            result,
            "differs",
            "this machine and software are the recorded ones, and come to another state",
        )
    if found.losses_near:
        why = (
            "states differ, which another machine explains, and the losses are near those recorded"
        )
        return _but(result, "cannot tell", why)
    return _but(
        result, "differs", "states differ, and so do the losses, by more than rounding explains"
    )


def _but(result: Reproduction, verdict: Verdict, why: str) -> Reproduction:
    return replace(result, verdict=verdict, why=why)


def _odd_files(
    recorded: Mapping[str, str], made: Mapping[str, str], *, weights: bool
) -> tuple[str, ...]:
    """Files that differ; those that hold weights only if these are the same."""
    odd = {name for name in recorded.keys() | made.keys() if recorded.get(name) != made.get(name)}
    return tuple(sorted(name for name in odd if weights or not name.endswith(".safetensors")))


def _odd_settings(recorded: Internal, made: Internal) -> tuple[str, ...]:
    one, other = recorded.to_json(), made.to_json()
    return tuple(
        f"`{name}` in its manifest"
        for name in one
        if name not in _OF_THE_RUN and canonical.dumps(one[name]) != canonical.dumps(other[name])
    )


def _interval(intervals: object, name: str) -> tuple[float, float] | None:
    match intervals.get(name) if isinstance(intervals, dict) else None:
        case [int() | float() as low, int() | float() as high]:
            return float(low), float(high)
    return None


def _not_in_window(recorded: Recorded, window: WindowCompared) -> tuple[str, ...]:
    lines = [
        "this is evidence, not proof: a training that went on otherwise outside of this window is not noticed"
    ]
    if window.share_of_steps < 1:
        lines.append(f"{1 - window.share_of_steps:.0%} of the steps")
    if window.share_of_rows < 1:
        lines.append(f"what {1 - window.share_of_rows:.0%} of the rows were in training")
    if recorded.ends_in_trail is None:
        lines.append("whether the weights in the folder are those that the trail ends in")
    if len(recorded.trails) > 1:
        lines.append(f"{len(recorded.trails) - 1} other trainings of this step")
    return tuple(lines)


def _not_the_rest(recorded: Recorded) -> tuple[str, ...]:
    before = recorded.before
    if not before:
        return ()
    return (f"the {len(before)} steps before this one: reproduce the parents' folders for these",)
