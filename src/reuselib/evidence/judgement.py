"""From a whole step that was made again to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.evidence.closeness import TrailCompared, compare_trails, compare_weights
from reuselib.evidence.leftovers import Leftovers, explains_files, find_leftovers
from reuselib.evidence.reproduction import Reproduction
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.report import Problem

if TYPE_CHECKING:
    from reuselib.evidence.paired import Paired
    from reuselib.evidence.recorded import Recorded
    from reuselib.evidence.reproduction import Verdict
    from reuselib.lineage.definition import Internal
    from reuselib.lineage.trail import Trail

WHO = "who made it: `verify` looks at signatures"
ROWS = "whether the recorded rows are right: only that these are the recorded ones"
_METRICS = "the recorded metrics: `audit` measures them again"
_SAME_MACHINE = "this machine and software are the recorded ones, and "


@dataclass(frozen=True)
class Made:
    """What came of a step that was done again."""

    folder: Path
    """Holds the payload."""
    internal: Internal
    """What the run settled."""
    trails: Sequence[Trail]
    measure: Callable[[], Paired | None]
    """Both models on the test rows; None if there are no rows."""


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
    leftovers = find_leftovers(
        (recorded.folder, recorded.inventory, recorded.internal),
        (made.folder, inventory, made.internal),
        weights=same,
    )
    result = replace(
        recorded.unknown(),
        weights=weights,
        files=leftovers.files,
        first_step=trails.first_different,
        last_equal_step=trails.last_equal,
        environment=tuple(excuses),
        history=recorded.before,
        unchecked=(*not_the_rest(recorded), *_no_trail(recorded, made), ROWS, _METRICS, WHO),
    )
    if contradiction := _contradiction(result, recorded, made, trails):
        problem = Problem("BAD_TRAIL", contradiction)
        why = "the recorded trail leads elsewhere"
        return replace(result, verdict="differs", why=why, problems=(problem,))
    if same:
        return _with_leftovers(replace(result, verdict="bit-equal"), leftovers)
    if not excuses:
        return but(result, "differs", f"{_SAME_MACHINE}give other weights")
    if weights.near:
        why = "the weights differ by no more than rounding may on another machine"
        return _with_leftovers(but(result, "within tolerance", why), leftovers)
    return _with_leftovers(_judge_metrics(result, recorded, made), leftovers)


def same_device(excuses: Sequence[str]) -> bool:
    """Whether random numbers are the recorded ones, so that losses must be: each kind of device draws its own."""
    return not any(each.startswith("device:") for each in excuses)


def but(result: Reproduction, verdict: Verdict, why: str) -> Reproduction:
    """The same result with a verdict that needs a reason."""
    return replace(result, verdict=verdict, why=why)


def not_the_rest(recorded: Recorded) -> tuple[str, ...]:
    """That the steps before were not made again."""
    before = recorded.before
    if not before:
        return ()
    return (f"the {len(before)} steps before this one: reproduce the parents' folders for these",)


def _no_trail(recorded: Recorded, made: Made) -> tuple[str, ...]:
    if recorded.trails or not made.trails:
        return ()
    return ("the way to the weights: this step trains, but its record has no trail",)


def _contradiction(
    result: Reproduction, recorded: Recorded, made: Made, trails: TrailCompared
) -> str:
    """In what the trail contradicts the record, whatever the machine; empty if in nothing."""
    step, weights, excuses = trails.first_different, result.weights, result.environment
    same = weights is not None and weights.num_equal == weights.num_tensors
    if recorded.trails and len(recorded.trails) != len(made.trails):
        return f"it tells of {len(recorded.trails)} trainings, but there were {len(made.trails)}"
    if same and step is not None:
        return f"the weights are these, but step {step} was never in that state"
    if recorded.ends_in_trail is False:
        return "the weights in the folder are not those that the trail ends in"
    if trails.other_rows:
        return f"by step {step}, batches were made of other rows"
    if excuses and not trails.losses_near and same_device(excuses):
        return f"from step {step} on, losses differ by more than rounding explains"
    return ""


def _judge_metrics(result: Reproduction, recorded: Recorded, made: Made) -> Reproduction:
    """Whether two models with other weights are equally good. What the record says of that counts for nothing."""
    far = "the weights differ by more than rounding explains"
    paired = made.measure()
    if paired is None or not paired.both:
        return but(result, "differs", f"{far}, and there is no metric to compare")
    result = replace(result, metrics=paired.both)
    if worse := ", ".join(paired.worse()):
        return but(result, "differs", f"{far}, and on the same rows {worse} differs too")
    if untrue := ", ".join(paired.untrue(recorded.figures.after)):
        why = f"{far}, and the model in the folder does not reach the recorded {untrue}"
        return but(result, "differs", why)
    why = (
        f"{far}, but on the same {paired.num_rows} rows the two models are as good as each other, "
        "as far as so many rows can tell"
    )
    return but(result, "metric-equal", why)


def _with_leftovers(result: Reproduction, leftovers: Leftovers) -> Reproduction:
    """The verdict on the weights, lowered by everything else that is not as recorded."""
    if not result.ok:
        return result
    alike = {"bit-equal": "the weights are the same", "within tolerance": "the weights are near"}
    weights = alike.get(result.verdict, "the models are as good as each other")
    settings = ", ".join(f"{name} in its manifest" for name in leftovers.settings)
    what = ", ".join(filter(None, (settings, *leftovers.contents)))
    others = result.verdict == "metric-equal"
    firm = leftovers.firm_settings if others else leftovers.settings
    software = explains_files(result.environment)
    if firm or (leftovers.files and not software):
        return but(result, "differs", f"{weights}, but not {what or ', '.join(leftovers.files)}")
    if leftovers.contents or leftovers.settings:
        why = f"{weights}, but not {what}: whether other software or weights explain that is not known"
        return but(result, "cannot tell", why)
    if leftovers.files and result.verdict == "bit-equal":
        names = ", ".join(leftovers.files)
        why = f"the weights are the same; {names} differ in the version of the software that wrote them"
        return but(result, "within tolerance", why)
    return result
