"""From a part of a training that was done again to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reuselib.evidence.closeness import TrailCompared, compare_trails
from reuselib.evidence.judgement import ROWS, WHO, but, not_the_rest, same_device
from reuselib.evidence.reproduction import Reproduction, WindowCompared
from reuselib.lineage.report import Problem

if TYPE_CHECKING:
    from reuselib.evidence.recorded import Recorded
    from reuselib.evidence.windows import Chosen
    from reuselib.lineage.trail import Trail


def judge_window(
    recorded: Recorded, chosen: Chosen, again: Trail, rows: frozenset[int], excuses: Sequence[str]
) -> Reproduction:
    """Compare a part of a training with its trail.

    Args:
        recorded: the model.
        chosen: the part.
        again: the trail of the replay.
        rows: numbers of those that were seen.
        excuses: how machine, software or device differ from those recorded.
    """
    trail = recorded.trails[0]
    found = compare_trails([trail], [again])
    window = WindowCompared(
        which="from the beginning" if chosen.start is None else "from a kept state",
        asked=chosen.asked,
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
        unchecked=(*_not_in_window(recorded, window), *not_the_rest(recorded), ROWS, WHO),
    )
    if recorded.ends_in_trail is False:
        problem = Problem(
            "BAD_TRAIL", "the weights in the folder are not those that the trail ends in"
        )
        result = replace(result, problems=(problem,))
        return but(result, "differs", "the trail belongs to other weights")
    return _judge_states(result, found, excuses)


def _judge_states(
    result: Reproduction, found: TrailCompared, excuses: Sequence[str]
) -> Reproduction:
    """What it means that states on the way are the recorded ones, or are not."""
    if found.first_different is None:
        return replace(result, verdict="as recorded")
    if found.other_rows:
        return but(result, "differs", "batches were made of other rows")
    if not excuses:
        why = "this machine and software are the recorded ones, and come to another state"
        return but(result, "differs", why)
    if found.losses_near:
        why = (
            "states differ, which another machine explains, and the losses are near those recorded"
        )
        return but(result, "cannot tell", why)
    if not same_device(excuses):
        why = "states and losses differ, which random numbers of another kind of device explain"
        return but(result, "cannot tell", why)
    why = "states differ, and so do the losses, by more than rounding explains"
    return but(result, "differs", why)


def _not_in_window(recorded: Recorded, window: WindowCompared) -> tuple[str, ...]:
    lines = [
        "this is evidence, not proof: a training that went on otherwise outside of this window is not noticed",
        "files other than weights, and what the manifest says of the network's structure",
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
