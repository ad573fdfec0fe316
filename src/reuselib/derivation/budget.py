"""Whether a recipe fits: what its steps take of memory and disk, from configurations and headers alone.

Every step is gone through on a network without weights. What a step takes is the most that any of its phases takes at
once: opening, measuring, training, calibrating, saving, and the model that the child is compared with beside it. To
that comes what the process takes anyway, which is measured: this one has loaded the same libraries and rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapted, Adapter, ModelRef
from reuselib.derivation.demands import calibrating, lesson_bytes, measuring, own_memory, teaching
from reuselib.derivation.folders import child_bytes, fresh_tensors, stored_bytes
from reuselib.derivation.needs import Budget, Needed
from reuselib.derivation.origin import COMPRESSING
from reuselib.derivation.sketch import Sketch, sketch_model, sketch_step
from reuselib.derivation.streaming import COPIES
from reuselib.derivation.trainings import Training
from reuselib.measure.cost import count_parameters
from reuselib.measure.heap import Bytes, of_module
from reuselib.measure.memory import available

if TYPE_CHECKING:
    from torch import nn

    from reuselib.derivation.plan import Plan

HEAP = 0.1
"""Of the most that was taken in small blocks, what lies between them. An assumption, which the figures of steps that do
not train bear out (benchmarks/budget.py)."""
STIRRED = 1.0
"""Of what a pass forward and back takes in small blocks, what training takes besides, because blocks of other sizes
come with each batch and leave gaps. Chosen to fit benchmarks/budget.py, since the C library tells nothing of it: 0.7
suits a full training there, 1.25 one of low-rank updates, whose many small tensors lie between the large ones. What
lies about is given back when the training is over, see `memory.give_back`; giving it back after every step as well was
tried, and takes more time than it saves of memory."""


MEASURING, BESIDE = "measuring", "measuring beside the model it is compared with"
AFTERWARDS = (MEASURING, BESIDE)
"""Phases at the end of a step: by then the simple method has been tried, with the libraries that this needs."""


@dataclass(frozen=True)
class Phase:
    """A part of a step."""

    name: str
    held: Bytes
    """Tensors at its worst moment."""
    mapped: int = 0
    """Bytes of files that are in memory besides; the system lets go of them where memory is short."""
    passing: int = 0
    """See `Footprint`."""
    kernels: int = 0
    """See `Training`; they stay from now on."""
    rested: bool = False
    """What was freed before it was given back to the system."""


def estimate(plan: Plan, *, num_processes: int = 1, keep_checkpoints: int = 2) -> Budget:
    """What the steps that the store lacks would take on this machine; of models only headers are opened.

    Args:
        plan: pinned, or only looked at, see `Recipe.plan`.
        num_processes: to train in, on this machine.
        keep_checkpoints: see `Runtime`.

    Raises:
        ReuseError: a step cannot be applied to the network.
    """
    done = plan.finished() if plan.is_pinned else ()
    walk = _begin(plan, done[-1] if done else plan.base.folder, num_processes)
    before, after = own_memory(plan)
    steps, heap, kernels, needed = list[Needed](), 0, 0, 0
    for adapter in plan.steps[len(done) :]:
        phases, step = walk.take(adapter)
        peak, worst = 0, phases[0]
        for phase in phases:
            own = after if steps or phase.name in AFTERWARDS else before
            taken = round(phase.held.small * (1 + HEAP) + phase.passing * STIRRED)
            heap = taken if phase.rested else max(heap, taken)
            kernels = max(kernels, phase.kernels)
            resident = own + phase.held.large + heap + kernels
            needed = max(needed, resident)
            if resident + phase.mapped > peak:
                peak, worst = resident + phase.mapped, phase
        steps.append(replace(step, peak_bytes=peak, phase=worst.name))
    free = available()
    return Budget(
        steps=tuple(steps),
        num_processes=num_processes,
        own_bytes=before,
        needed_bytes=num_processes * needed,
        # what this process holds already is no longer free, and is not needed once more
        free_bytes=None if free is None else free + after,
        disk_bytes=sum(each.child_bytes + each.lesson_bytes + each.cache_bytes for each in steps)
        + max((each.checkpoint_bytes for each in steps), default=0) * (keep_checkpoints + 1),
        output_bytes=steps[-1].child_bytes if steps else 0,
        free_disk_bytes=_free_disk(plan.store.path),
    )


@dataclass
class _Walk:
    """The network on its way through the steps."""

    run: Sketch
    module: nn.Module
    folder: Path
    """Of the first model."""
    origin: Bytes
    """Weights of the model that compressed ones are compared with."""
    mapped: int
    """What it takes on disk."""
    opening: list[Phase]
    """What comes before the first step."""
    compressed: bool = False

    def take(self, adapter: Adapter) -> tuple[list[Phase], Needed]:
        """One step further: its phases in order, and what it takes, but for its peak."""
        before = of_module(self.module)
        if adapter.relation in COMPRESSING and not self.compressed:
            self.compressed, self.origin = True, before
        run = replace(self.run, student=self.module, trainings=[], looked=[], lessons=[])
        adapted, unknown = sketch_step(adapter, self.module, run)
        if self._streams(adapter, before):
            # a few tensors at a time: as they were, on the way, and as they are to be
            phases = [Phase("writing tensor by tensor", _largest(self.module) * 3)]
        else:
            phases = [*self.opening, *self._phases(adapter, adapted, run)]
            self.opening = []
        heaviest = max(run.trainings, key=lambda each: each.step.peak.total, default=None)
        step = Needed(
            kind=adapter.kind,
            peak_bytes=0,
            phase="",
            tensor_bytes=max(each.held.total for each in phases),
            num_parameters=count_parameters(adapted.module),
            num_trainable=heaviest.num_trainable if heaviest else 0,
            num_steps=sum(each.num_steps for each in run.trainings),
            parts=_parts(heaviest) if heaviest else {},
            sharded_bytes=heaviest.sharded.total if heaviest and heaviest.sharded else None,
            child_bytes=child_bytes(adapter, adapted, self.folder),
            checkpoint_bytes=sum(each.checkpoint for each in run.trainings),
            lesson_bytes=lesson_bytes(run, self.module) if run.lessons else 0,
            cache_bytes=max((each.cache for each in run.trainings), default=0),
            unknown=unknown,
        )
        self.module = adapted.module
        self.run = replace(run, form=adapter.follow(run.form), fresh=frozenset())
        return phases, step

    def _streams(self, adapter: Adapter, weights: Bytes) -> bool:
        """Whether the network is never in memory as a whole, see `derivation.streaming`."""
        if not (adapter.streams and adapter.whole):
            return False
        room = available()
        return self.run.rows is None or (room is not None and COPIES * weights.total > room)

    def _phases(self, adapter: Adapter, adapted: Adapted, run: Sketch) -> Iterator[Phase]:
        before, after = of_module(self.module), of_module(adapted.module)
        if run.lessons:
            held = before + self.origin + teaching(run, self.module)
            yield Phase("asking the teacher", held, self.mapped)
        if run.looked:
            yield Phase("calibrating", before + calibrating(adapter, run, self.module))
        for each in run.trainings:
            held = each.weights + each.kept + each.step.peak
            yield Phase("training", held, passing=each.step.passing, kernels=each.kernels)
        copy = after if adapted.dtype != "float32" else Bytes()
        yield Phase("saving", after + copy, rested=True)
        if run.rows is None:
            return
        held = after + measuring(run, adapted.module)
        yield Phase(MEASURING, held)
        if self.compressed:
            yield Phase(BESIDE, held + self.origin, self.mapped)


def _begin(plan: Plan, folder: Path, num_processes: int) -> _Walk:
    """At the model in `folder`."""
    from reuselib.derivation.plan import form_of
    from reuselib.model.opening import read_manifest
    from reuselib.training.device import target_device

    loaded = sketch_model(folder, plan.task, plan.store)
    module = loaded.module

    def sketched(ref: ModelRef) -> nn.Module:
        from reuselib.model.source import glance

        return sketch_model(glance(ref, plan.store).folder, plan.task, plan.store).module

    run = Sketch(
        task=plan.task,
        rows=plan.splits,
        processor=loaded.processor,
        seed=plan.seed,
        device=target_device(),
        open=sketched,
        num_processes=num_processes,
        form=form_of(read_manifest(folder)),
        fresh=fresh_tensors(plan.task.head(module), module, folder),
    )
    weights, stored = of_module(module), stored_bytes(folder)
    mapped = weights.total if stored is None else stored
    opening = [Phase("opening", weights + _largest(module), mapped)]
    if plan.splits is not None:
        opening.append(Phase("measuring before", weights + measuring(run, module)))
    return _Walk(run, module, folder, weights, mapped, opening)


def _largest(module: nn.Module) -> Bytes:
    return Bytes.block(max((each.nbytes for each in module.parameters()), default=0))


def _parts(training: Training) -> dict[str, int]:
    return {"weights": training.weights.total, **training.step.parts, "kept": training.kept.total}


def _free_disk(path: Path) -> int:
    place = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    return shutil.disk_usage(place).free
