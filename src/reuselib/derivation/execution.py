"""Carrying out a plan: what is in the store is reused, the rest is computed, each child put there whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter
from reuselib.derivation.claiming import claimed, needed
from reuselib.derivation.company import Company, announce, assist, gathered
from reuselib.derivation.judging import judged_once, pass_gates
from reuselib.derivation.link import Link
from reuselib.derivation.measuring import Gauge
from reuselib.derivation.plan import Plan, as_parent, identity
from reuselib.derivation.recording import write_record
from reuselib.derivation.saving import Saving
from reuselib.derivation.session import Session, begin, equipped
from reuselib.derivation.sharing import Shelf
from reuselib.derivation.streaming import sketch_for
from reuselib.errors import StoreError
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.output import check_output, deliver, recover
from reuselib.lineage.verify import verify
from reuselib.model.model import Model
from reuselib.model.opening import Opened, open_network
from reuselib.model.source import Pinned
from reuselib.progress import Report
from reuselib.training.world import World, alone, join

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.derivation.derive import Runtime


@dataclass(frozen=True)
class Child:
    """One finished step."""

    adapter: Adapter
    folder: Path
    """In the store."""
    manifest: Manifest
    reused: bool
    """It was there already."""


@dataclass(frozen=True)
class Execution:
    """What came of a plan."""

    plan: Plan
    children: tuple[Child, ...]
    output: Path | None = None
    """Where the last child was copied to, if that was asked for."""
    opened: Opened | None = None
    """The last child in memory, unless all came from the store."""
    verdicts: tuple[Mapping[str, Json], ...] = ()
    """On each bound of each gate, see `measure.gates.Verdict`."""
    world: World = World()
    """The processes that carried it out."""

    def model(self) -> Model:
        """The last child."""
        last = self.children[-1]
        plan, trusted = self.plan, self.plan.base.ref.trust_remote_code
        opened = self.opened or open_network(
            last.folder, plan.task, plan.store, trust_remote_code=trusted
        )
        ref = replace(as_parent(last.folder, last.manifest).ref, trust_remote_code=trusted)
        return Model(opened.module, opened.processor, plan.task, last.manifest, last.folder, ref)


def execute(plan: Plan, runtime: Runtime) -> Execution:
    """Make what the store lacks, hold the last child against the gates, then copy it to `runtime.output`.

    Raises:
        GateFailed: the last child misses a gate; it is in the store, and nothing is copied.
        ReuseError: a step failed; the children before it are in the store.
    """
    return hand_over(make(plan, runtime), runtime)


def make(plan: Plan, runtime: Runtime) -> Execution:
    """The children, from the store or made now; otherwise as `execute`.

    Of several processes the first one does it, and calls the others when it trains, see `derivation.company`.
    """
    world = join()
    with world.sharing_fate(), alone(world):
        return _lead(plan, runtime, world) if world.main else _follow(plan, runtime, world)


def hand_over(made: Execution, runtime: Runtime) -> Execution:
    """Judge the last child and copy it to where it was asked for; otherwise as `execute`."""
    world, last, output = made.world, made.children[-1], runtime.output
    plan = made.plan
    names = [last.manifest.derivation_id]
    with world.sharing_fate(), alone(world), plan.store.claims.keep(names) as keep:
        folder = _there(plan, last.manifest.derivation_id)  # it may have been packed since
        keep(needed(plan, as_parent(folder, last.manifest)))
        verdicts = judged_once(
            world,
            partial(
                pass_gates,
                plan,
                folder,
                last.manifest,
                reused=last.reused,
                protocol=runtime.protocol,
            ),
        )
        if world.main and output is not None:
            recover(output)
            if not _holds(output, last.manifest):
                deliver(folder, output, overwrite=runtime.overwrite)
        world.part()
    return replace(made, output=output, verdicts=verdicts)


def _lead(plan: Plan, runtime: Runtime, world: World) -> Execution:
    """What the first process does, or the only one. What it was made from and has made stays in the store meanwhile."""
    with plan.store.claims.keep(needed(plan, plan.base)) as keep:
        return _take_steps(plan, runtime, world, keep)


def _take_steps(
    plan: Plan, runtime: Runtime, world: World, keep: Callable[[Sequence[str]], None]
) -> Execution:
    """Reuse the steps that are done, do the others; each child is kept as soon as it is known."""
    done = [
        Child(adapter, folder, Manifest.read(folder), reused=True)
        for adapter, folder in zip(plan.steps, plan.finished(), strict=False)
    ]
    if done:
        keep(needed(plan, as_parent(done[-1].folder, done[-1].manifest)))
    plan.store.tidy([child.manifest.derivation_id for child in done])
    if len(done) < len(plan.steps):
        if runtime.output is not None:
            check_output(runtime.output, overwrite=runtime.overwrite)
        plan.store.check()
        for child in done:
            _note(plan, child)  # which a run that was killed may not have come to
    with gathered(plan, world, [child.manifest.derivation_id for child in done]) as shelf:
        made, opened = _make(plan, done, runtime, (world, shelf), keep)
    return Execution(plan, (*done, *made), opened=opened, world=world)


def _follow(plan: Plan, runtime: Runtime, world: World) -> Execution:
    """What every other process does."""
    children = [
        Child(adapter, folder, Manifest.read(folder), reused=reused)
        for adapter, (folder, reused) in zip(plan.steps, assist(plan, runtime, world), strict=True)
    ]
    return Execution(plan, tuple(children), world=world)


def _holds(output: Path, manifest: Manifest) -> bool:
    """Whether a folder is already a copy of that very child."""
    return (output / MANIFEST).exists() and verify(output).ok and Manifest.read(output) == manifest


def _make(
    plan: Plan,
    done: list[Child],
    runtime: Runtime,
    with_whom: tuple[World, Shelf],
    keep: Callable[[Sequence[str]], None],
) -> tuple[list[Child], Opened | None]:
    """Compute the steps after those that are done; the network is that of the last one, if it was made here."""
    world, shelf = with_whom
    saving = Saving.of(runtime)
    made: list[Child] = []
    gauge: Gauge | None = None
    opened: Opened | None = None
    parent = as_parent(done[-1].folder, done[-1].manifest) if done else plan.base
    for index in range(len(done), len(plan.steps)):
        adapter = plan.steps[index]
        if gauge is None or opened is None:
            sketch = sketch_for(plan, adapter, parent)
            gauge, opened = _begin(plan, parent, runtime, sketch)
        report = _labelled(runtime.report, f"[{index + 1}/{len(plan.steps)}] {adapter.kind}")
        company = Company(world, index, shelf)
        session = replace(gauge.session, report=report, settled={}, trails=[], company=company)
        session = replace(session, saving=saving)
        child, opened = _step(gauge, Link(plan, adapter, parent), opened, session)
        announce(world, child.manifest.derivation_id)
        made.append(child)
        parent = as_parent(child.folder, child.manifest)
        keep(needed(plan, parent))
    saving.require_used()
    return made, opened


def _begin(
    plan: Plan, parent: Pinned, runtime: Runtime, sketch: Opened | None
) -> tuple[Gauge, Opened]:
    """The model that the next step starts from, and what measures it."""
    opened, session = begin(plan, parent.folder, sketch)
    return Gauge(plan, equipped(session, runtime), runtime.protocol), opened


def _step(
    gauge: Gauge, link: Link, opened: Opened, session: Session
) -> tuple[Child, Opened | None]:
    """Compute one child, unless another run on the store does; then share that one, which is in no memory here."""
    with claimed(link, session.report) as finished:
        if finished is not None:
            child = Child(link.adapter, finished, Manifest.read(finished), reused=True)
            _note(gauge.plan, child)
            return child, None
        return _compute(gauge, link, opened, session)


def _compute(
    gauge: Gauge, link: Link, opened: Opened, session: Session
) -> tuple[Child, Opened | None]:
    """Compute one child in a temporary folder, which becomes the child only when it is complete."""
    from reuselib.derivation.step import perform

    plan, adapter, parent = gauge.plan, link.adapter, link.parent
    session = link.session(session, opened.form)
    gauge.before(parent, opened.module)
    with plan.store.fill(link.derivation_id) as growing:
        outcome = perform(
            adapter, opened, session, identity=identity(parent.manifest), folder=growing
        )
        side, figures = gauge.after(link, outcome, growing)
        write_record(link, outcome, figures, growing)
    folder = _there(plan, link.derivation_id)
    if session.step_saving is not None:
        session.step_saving.place.clear()
    child = Child(adapter, folder, Manifest.read(folder), reused=False)
    _note(plan, child)
    gauge.keep(as_parent(folder, child.manifest), side)
    return child, outcome.opened if opened.weights is None else None


def _note(plan: Plan, child: Child) -> None:
    """Have the store find a child by what it holds too, as later steps look for what they started from."""
    plan.store.remember_root(child.manifest.digests.dir_hash, child.folder)


def _there(plan: Plan, derivation_id: str) -> Path:
    """The folder of a child that is finished."""
    folder = plan.store.find(derivation_id)
    if folder is None:
        raise StoreError(
            f"the finished child {derivation_id[:12]} is no longer in the store at {plan.store.path}",
            expected="a store that nobody empties during a run",
            fix="run again",
        )
    return folder


def _labelled(report: Report | None, label: str) -> Report | None:
    """Put the step's place and kind in front of what the loop reports."""
    if report is None:
        return None
    return lambda progress: report(replace(progress, phase=f"{label}: {progress.phase}"))
