"""Measuring around steps: each model once a run, and each child beside its parent and beside the origin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from reuselib.derivation.origin import find_origin
from reuselib.derivation.origin import origin as origin_of
from reuselib.derivation.plan import Plan, as_parent, identity
from reuselib.derivation.streaming import UNMEASURED
from reuselib.errors import IntegrityError, SourceError, TrainingError
from reuselib.measure.bootstrap import intervals
from reuselib.measure.compare import Side, compare, recordable
from reuselib.measure.probe import Measured, Probe, measured_cost, times
from reuselib.model.figures import Figures
from reuselib.model.opening import Opened, open_network
from reuselib.model.sketching import open_sketch

if TYPE_CHECKING:
    from torch import nn

    from reuselib.adapter import Json
    from reuselib.derivation.link import Link
    from reuselib.derivation.session import Session
    from reuselib.derivation.step import Outcome
    from reuselib.lineage.manifest import Manifest
    from reuselib.measure.latency import Protocol
    from reuselib.measure.slices import Slices
    from reuselib.model.source import Pinned

Identity = tuple[str, ...]


@dataclass
class Gauge:
    """What was measured in this run."""

    plan: Plan
    session: Session
    protocol: Protocol | None = None
    sides: dict[Identity, Side] = field(default_factory=dict)
    """By `derivation.plan.identity`: the model that is current, and those that later ones are compared with."""

    @cached_property
    def probe(self) -> Probe | None:
        """The test rows; None if the recipe has no data."""
        rows = self.session.rows
        if rows is None:
            return None
        encoded = self.session.encoded
        return Probe(
            task=self.plan.task,
            processor=encoded.processor,
            rows=rows.test,
            columns=rows.columns,
            examples=encoded.of(rows.test),
            protocol=self.protocol,
        )

    def before(self, parent: Pinned, module: nn.Module) -> Side:
        """The model that a step starts from, unless it was measured when it was a child itself."""
        key = identity(parent.manifest)
        if key not in self.sides:
            self.sides[key] = self._side(module, parent.folder)
        return self.sides[key]

    def after(self, link: Link, outcome: Outcome, folder: Path) -> tuple[Side, Figures]:
        """The child, and the figures of its step.

        Args:
            link: the step; `before` was called with its parent.
            outcome: what it left; the network is in evaluation mode.
            folder: holds the child's payload.
        """
        before, module = self.sides[identity(link.parent.manifest)], outcome.opened.module
        measured = self._measured(module, folder)
        try:
            found = link.origin if link.compressed else self.plan.base
        except (SourceError, IntegrityError) as error:
            child = self._timed(measured, module)
            return child, self._figures(before, child, outcome, {"missing": error.what})
        if self.probe is None or weightless(module):
            child, origin = Side(measured), self._costed(found)
        elif not link.compressed:
            child, origin = self._timed(measured, module), self._remembered(found)
        else:
            child, origin = self._alternated(measured, module, found)
        told = self.beside(found, origin, child, alternated=link.compressed)
        return child, self._figures(before, child, outcome, told)

    def keep(self, child: Pinned, side: Side) -> None:
        """Remember a finished child, and of the earlier models those that later ones are compared with."""
        origin, _ = origin_of(child.manifest, child.history)
        wanted = {identity(self.plan.base.manifest), identity(origin)}
        self.sides = {key: kept for key, kept in self.sides.items() if key in wanted}
        self.sides[identity(child.manifest)] = side

    def _side(self, module: nn.Module, folder: Path) -> Side:
        return self._timed(self._measured(module, folder), module)

    def _measured(self, module: nn.Module, folder: Path) -> Measured:
        if self.probe is None or weightless(module):
            return Measured(cost=measured_cost(module, folder))
        measured = self.probe.measure(module, folder)
        odd = next((k for k, v in measured.metrics.items() if not math.isfinite(v)), "")
        if odd:
            raise TrainingError(
                f"the {odd} of the network on the test rows is {measured.metrics[odd]}",
                expected="finite outputs on every row",
                fix="look for NaN or infinity in the weights of the model before this step, and in the rows",
            )
        return measured

    def _timed(self, measured: Measured, module: nn.Module) -> Side:
        if self.probe is None or weightless(module):
            return Side(measured)
        return Side(measured, self.probe.time(module)[0])

    def _alternated(
        self, measured: Measured, module: nn.Module, found: Pinned
    ) -> tuple[Side, Side]:
        """Child and origin, timed in turns. The origin is opened for that: a step used up the one in memory."""
        assert self.probe is not None
        opened = self.open(found.folder)
        known = self.sides.get(identity(found.manifest))
        reference = known.measured if known else self._measured(opened.module, found.folder)
        first, second = self.probe.time(opened.module, module)
        self.sides.setdefault(identity(found.manifest), Side(reference, first))
        return Side(measured, second), Side(reference, first)

    def _remembered(self, found: Pinned) -> Side:
        """The base of a recipe that compresses nothing."""
        key = identity(found.manifest)
        if key not in self.sides:
            self.sides[key] = self._side(self.open(found.folder).module, found.folder)
        return self.sides[key]

    def _costed(self, found: Pinned) -> Side:
        """Without rows, or without weights, there is only what can be counted."""
        key = identity(found.manifest)
        if key not in self.sides:
            sketch = open_sketch(found.folder, self.plan.task, self.plan.store)
            opened = sketch or self.open(found.folder)
            self.sides[key] = Side(Measured(cost=measured_cost(opened.module, found.folder)))
        return self.sides[key]

    def open(self, folder: Path) -> Opened:
        """A model of the plan's task."""
        from reuselib.training.seeds import seeded

        plan = self.plan
        with seeded(plan.seed):  # a head that the base lacks is drawn as it was when the run began
            return open_network(
                folder, plan.task, plan.store, trust_remote_code=plan.base.ref.trust_remote_code
            )

    def beside(
        self, found: Pinned, origin: Side, child: Side, *, alternated: bool
    ) -> dict[str, Json]:
        """What is recorded of the origin and of the child against it."""
        parts = self._parts(child)
        comparison = compare(origin, child, parts, alternated=alternated)
        told = {
            "name": found.manifest.name,
            "dir_hash": found.manifest.digests.dir_hash,
            "metrics": {**origin.measured.quality, **origin.measured.metrics},
            "cost": {**origin.measured.cost, **times(origin.timings)},
            "drift": {k: v for k, v in comparison.drift.items() if not isinstance(v, list)},
            "changes": comparison.changes,
            "speedup": comparison.speedup,
            "in_turns": alternated and bool(comparison.speedup),
        }
        return cast("dict[str, Json]", recordable(told))

    def _figures(
        self, before: Side, child: Side, outcome: Outcome, origin: Mapping[str, Json]
    ) -> Figures:
        splits, parts = self.plan.splits, self._parts(child)
        comparison = compare(before, child, parts, alternated=False)
        earlier, later = before.measured, child.measured
        return Figures(
            metric=self.plan.task.metric if later.metrics else "",
            before=earlier.metrics,
            after=later.metrics,
            quality_before=cast("dict[str, float]", recordable(earlier.quality)),
            quality=cast("dict[str, float]", recordable(later.quality)),
            intervals={
                "before": _listed(earlier),
                "after": _listed(later),
                "change": comparison.changes,
            }
            if later.metrics
            else {},
            reference=outcome.reference,
            step=outcome.figures,
            cost={
                **asdict(outcome.cost),
                **later.cost,
                **times(child.timings),
                **({"peak_bytes": outcome.peak_bytes} if outcome.peak_bytes is not None else {}),
                "seconds": outcome.seconds,
            },
            cost_before={**earlier.cost, **times(before.timings)},
            drift=comparison.drift,
            origin=origin,
            test=splits.facts["splits"]["test"] if splits is not None else {},
            protocol=self._protocol(outcome.opened.module),
        )

    def _parts(self, child: Side) -> Slices:
        """Of the rows, if the child was measured on any."""
        return self.probe.slices if self.probe is not None and child.measured.metrics else {}

    def _protocol(self, module: nn.Module) -> dict[str, Json]:
        """How times were taken, or why there are no figures although there are rows."""
        if self.probe is None:
            return {}
        return {"missing": UNMEASURED} if weightless(module) else self.probe.describe()


def time_again(
    plan: Plan, folder: Path, manifest: Manifest, protocol: Protocol | None
) -> tuple[dict[str, Json], dict[str, float | str], dict[str, float | str]]:
    """Times of a finished child and of its origin, taken anew in turns: speed-ups, the child's, the origin's."""
    from reuselib.derivation.session import begin

    opened, session = begin(plan, folder)
    gauge = Gauge(plan, session, protocol)
    child = as_parent(folder, manifest)
    compressed = bool(origin_of(child.manifest, child.history)[1])
    found = find_origin(child, plan.store) if compressed else plan.base
    if gauge.probe is None:
        return {}, {}, {}
    reference = gauge.open(found.folder).module
    first, second = (Side(Measured(), each) for each in gauge.probe.time(reference, opened.module))
    return compare(first, second, {}).speedup, times(second.timings), times(first.timings)


def held_against_base(
    plan: Plan, folder: Path, manifest: Manifest, figures: Figures, protocol: Protocol | None
) -> Figures:
    """The figures of a finished child, with the plan's base for origin."""
    from reuselib.derivation.session import begin

    opened, session = begin(plan, folder)
    gauge = Gauge(plan, session, protocol)
    child = gauge.before(as_parent(folder, manifest), opened.module)
    origin = gauge.before(plan.base, gauge.open(plan.base.folder).module)
    return replace(figures, origin=gauge.beside(plan.base, origin, child, alternated=False))


def weightless(module: nn.Module) -> bool:
    """Whether a network has shapes only, see `model.sketching`: it can be counted, but it cannot run."""
    return any(each.is_meta for each in module.parameters())


def _listed(measured: Measured) -> dict[str, Json]:
    return {name: list(each) for name, each in intervals(measured.draws).items()}
