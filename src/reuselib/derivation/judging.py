"""Gates of a recipe held against its last child."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reuselib.derivation.origin import origin
from reuselib.derivation.plan import Plan
from reuselib.errors import GateFailed
from reuselib.lineage.chain import history
from reuselib.measure.gates import UNSTABLE, Verdict, judge
from reuselib.model.figures import Figures, read_figures

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.manifest import Manifest
    from reuselib.measure.latency import Protocol
    from reuselib.training.world import World


def pass_gates(
    plan: Plan, folder: Path, manifest: Manifest, *, reused: bool, protocol: Protocol | None = None
) -> tuple[dict[str, Json], ...]:
    """Judge the last child by its recorded figures, and note in the store what it missed.

    If the child was made in an earlier run, a figure that was recorded as unstable is measured anew, and so is what a
    base that the record does not speak of has for figures; everything else is taken from the record, so that a repeated
    run loads no network.

    Returns:
        The verdict on every bound, see `measure.gates.Verdict`.

    Raises:
        GateFailed: a gate is missed.
    """
    if not plan.gates:
        return ()
    figures = read_figures(folder)
    if reused and _began_elsewhere(plan, folder, manifest, figures):
        from reuselib.derivation.measuring import held_against_base

        figures = held_against_base(plan, folder, manifest, figures, protocol)
    verdicts = _judged(plan, figures)
    if reused and any(each.measured == UNSTABLE for each in verdicts):
        verdicts = _judged(plan, _timed_anew(plan, folder, manifest, figures, protocol))
    failed = [each for each in verdicts if not each.passed]
    told = tuple(asdict(each) for each in verdicts)
    plan.store.verdicts.note(manifest.derivation_id, [each.told for each in failed])
    if failed:
        raise GateFailed(
            "\n".join(f"gate failed: {each.told}" for each in failed),
            verdicts=told,
            expected=f"{len(verdicts)} gates passed; {len(verdicts) - len(failed)} did",
            fix=_fix(failed, figures, folder),
        )
    return told


def judged_once(
    world: World, judge: Callable[[], tuple[dict[str, Json], ...]]
) -> tuple[dict[str, Json], ...]:
    """What the first process judges, in every process; raises as `pass_gates`."""
    failure: GateFailed | None = None
    verdicts: tuple[dict[str, Json], ...] = ()
    if world.main:
        try:
            verdicts = judge()
        except GateFailed as error:
            failure, verdicts = error, cast("tuple[dict[str, Json], ...]", error.verdicts)
    told: Json = {"verdicts": list(verdicts), "failure": _words(failure)}
    told = cast("dict[str, Any]", world.broadcast(told))
    verdicts = tuple(told["verdicts"])
    if told["failure"] is None:
        return verdicts
    what, expected, fix = told["failure"]
    world.part()
    raise failure or GateFailed(what, verdicts=verdicts, expected=expected, fix=fix)


def _words(failure: GateFailed | None) -> list[Json] | None:
    return None if failure is None else [failure.what, failure.expected, failure.fix]


def _judged(plan: Plan, figures: Figures) -> tuple[Verdict, ...]:
    return judge(plan.gates, figures.flat(), figures.flat_origin(), figures.ratios(), plan.task)


def _began_elsewhere(plan: Plan, folder: Path, manifest: Manifest, figures: Figures) -> bool:
    """Whether a child is found by another run than the one that made it, from another base in its chain.

    Where nothing compresses, its figures were held against the base of that run.
    """
    known = figures.origin.get("dir_hash")
    if known in (None, plan.base.manifest.digests.dir_hash):
        return False
    return not origin(manifest, history(folder))[1]


def _timed_anew(
    plan: Plan, folder: Path, manifest: Manifest, figures: Figures, protocol: Protocol | None
) -> Figures:
    """Figures with times of now in the place of those that were recorded."""
    from reuselib.derivation.measuring import time_again

    speedup, cost, origin_cost = time_again(plan, folder, manifest, protocol)
    origin = {**figures.origin, "speedup": speedup}
    origin["cost"] = {**figures.flat_origin(), **origin_cost}
    return replace(figures, cost={**figures.cost, **cost}, origin=origin)


def _fix(failed: Sequence[Verdict], figures: Figures, folder: Path) -> str:
    """What to do now; a child that failed is never thrown away."""
    kept = f"the child is kept in {folder}, marked as failed"
    if any(each.measured == UNSTABLE for each in failed):
        return f"run the same command again when the machine is quiet: only the times are then taken anew; {kept}"
    if any(each.measured is None for each in failed):
        why = (
            figures.protocol.get("missing")
            or figures.origin.get("missing")
            or "there are no test rows, or this task has no such figure"
        )
        return f"{why}; change the gate or the recipe; {kept}"
    return f"change the recipe, or the gate; {kept}"
