"""A rehearsal: every step for real, but cut short, to find what would fail and to estimate what it would cost."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from reuselib.adapter import Adapted, Adapter
from reuselib.derivation.origin import COMPRESSING, find_origin, origin
from reuselib.derivation.recall import recall
from reuselib.derivation.step import own_structure
from reuselib.derivation.teacher import Teacher
from reuselib.measure.memory import peak_so_far
from reuselib.model.opening import open_network
from reuselib.progress import Progress, Report
from reuselib.training import checks
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from torch import nn

    from reuselib.adapter import Json
    from reuselib.derivation.plan import Plan
    from reuselib.derivation.session import Session
    from reuselib.model.opening import Opened

NUM_STEPS = 3
"""Optimizer steps taken of each training; the first one also pays for warming up."""

STATED = ("dense", "sparse")
"""Forms whose networks transformers builds from the configuration alone; other forms bring a format of their own."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a step was found to cost."""

    kind: str
    num_parameters: int
    num_trainable: int
    num_steps: int
    """Optimizer steps that the whole training takes; 0 if the step does not train."""
    seconds: float
    """Estimated for the whole step, without measuring and saving."""
    peak_bytes: int
    """The most memory that this process held so far."""
    stock: bool
    """Whether the configuration says how the child's network is built, so that plain transformers opens it (peft an
    adapter over it). If not, it is rebuilt by reuselib."""


def rehearse(plan: Plan, report: Report | None = None) -> tuple[Rehearsal, ...]:
    """Apply the plan's steps to the real model and rows, with a few optimizer steps each; nothing is kept.

    Raises:
        ReuseError: what `derive` would raise, at the latest when training begins.
    """
    from reuselib.derivation.session import begin
    from reuselib.training.seeds import seeded

    opened, session = begin(plan, plan.base.folder)
    session = replace(session, fresh=opened.fresh, form=opened.form, rehearsing=True)
    module, found = opened.module, []
    told = _Memory(plan)
    stand_in = _origin_of_base(plan)
    stock = not opened.rebuild or opened.form not in STATED
    for index, adapter in enumerate(plan.steps):
        if stand_in is None and any(later.uses_origin for later in plan.steps[index:]):
            stand_in = _stand_in(adapter, module, opened)
        label = f"[{index + 1}/{len(plan.steps)}] {adapter.kind}: trying"
        with seeded(plan.seed):
            adapted, cost = _try(
                adapter,
                module,
                replace(session, origin_teacher=stand_in, remembered=told),
                _Clock(label, report),
            )
        module = adapted.module
        session = replace(session, fresh=frozenset(), form=adapter.follow(session.form))
        if session.form in STATED and own_structure(adapter, adapted):
            stock = False
        found.append(replace(cost, stock=stock))
    return tuple(found)


@dataclass
class _Memory:
    """What `Run.recall` finds: what earlier steps of the rehearsal found, or models before it recorded."""

    plan: Plan
    found: dict[str, Json] = field(default_factory=dict)

    def __call__(self, name: str) -> Json:
        return (
            self.found[name]
            if name in self.found
            else recall(self.plan.base, self.plan.store, name)
        )


def _origin_of_base(plan: Plan) -> Teacher | None:
    """What plays the origin where the base was compressed before and is still to be healed; see `origin`."""
    first = next((at for at, each in enumerate(plan.steps) if each.relation in COMPRESSING), 0)
    heals = first == 0 or plan.steps[first].uses_origin
    manifest = plan.base.manifest
    if not heals or not any(each.uses_origin for each in plan.steps):
        return None
    if first and manifest.definition.task != plan.task.describe():
        return None
    if not origin(manifest, plan.base.history)[1]:
        return None
    found, trusted = find_origin(plan.base, plan.store), plan.base.ref.trust_remote_code
    return Teacher(
        (), lambda: open_network(found.folder, plan.task, plan.store, trust_remote_code=trusted)
    )


def _stand_in(adapter: Adapter, module: nn.Module, opened: Opened) -> Teacher | None:
    """What plays the origin in a rehearsal: a copy of the network as it is before the first compressing step."""
    if adapter.relation not in COMPRESSING:
        return None
    kept = replace(opened, module=copy.deepcopy(module), fresh=frozenset())
    return Teacher((), lambda: replace(kept, module=copy.deepcopy(kept.module)))


def _try(
    adapter: Adapter, module: nn.Module, session: Session, clock: _Clock
) -> tuple[Adapted, Rehearsal]:
    plans = _fit_plans(adapter)
    num_rows = len(session.splits.train) if plans else 0
    short = replace(adapter, **{name: _shortened(each) for name, each in plans.items()})  # type: ignore[type-var]
    started = time.perf_counter()
    adapted = short.adapt(module, replace(session, report=clock))
    module = adapted.module
    if isinstance(session.remembered, _Memory):
        session.remembered.found.update(adapted.byproducts)
    spent = time.perf_counter() - started
    learning = [each for each in module.parameters() if each.requires_grad]
    num_steps = sum(checks.num_steps(each, num_rows) for each in plans.values())
    return adapted, Rehearsal(
        kind=adapter.kind,
        num_parameters=sum(each.numel() for each in module.parameters()),
        num_trainable=sum(each.numel() for each in learning) if plans else 0,
        num_steps=num_steps,
        seconds=estimate(clock.times, num_steps, spent),
        peak_bytes=peak_so_far() or 0,
        stock=adapted.stock,
    )


def _fit_plans(adapter: Adapter) -> dict[str, FitPlan]:
    values = {each.name: getattr(adapter, each.name) for each in fields(adapter)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if isinstance(value, FitPlan)}


def _shortened(plan: FitPlan) -> FitPlan:
    """Neither early stopping, which would measure, nor more steps than are needed to time one."""
    most = NUM_STEPS if plan.max_steps is None else min(NUM_STEPS, plan.max_steps)
    return replace(plan, max_steps=most, early_stopping=None)


@dataclass
class _Clock:
    """Notes when each optimizer step was reported, and passes the report on."""

    label: str
    report: Report | None
    times: list[float] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        self.times.append(time.perf_counter())
        if self.report is not None:
            self.report(replace(progress, phase=self.label))


def estimate(times: Sequence[float], num_steps: int, spent: float) -> float:
    """Seconds for `num_steps` optimizer steps, from the moments at which the first few ended.

    The first step is left out, because it also pays for warming up; a training so short that there is no other took
    the time that was spent.
    """
    if len(times) < 2:
        return spent
    return (times[-1] - times[0]) / (len(times) - 1) * num_steps
