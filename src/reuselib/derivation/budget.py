"""Whether a recipe fits: what its steps take of memory and disk, from configurations and headers alone.

Every step is gone through on a network without weights. What a step takes is the most that any of its phases takes at
once: opening, measuring, training, calibrating, saving, and the model that the child is compared with beside it. To
that comes what the process takes anyway, which is measured: this one has loaded the same libraries and rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapted, Adapter, Json, ModelRef
from reuselib.derivation.demands import (
    calibrating,
    child_bytes,
    fresh_tensors,
    lesson_bytes,
    measuring,
    own_memory,
    stored_bytes,
    teaching,
)
from reuselib.derivation.origin import COMPRESSING
from reuselib.derivation.sketch import Sketch, Training, sketch_model, sketch_step
from reuselib.derivation.streaming import COPIES
from reuselib.errors import DoesNotFit
from reuselib.measure.cost import count_parameters
from reuselib.measure.footprint import Bytes, of_module
from reuselib.measure.memory import available

if TYPE_CHECKING:
    from torch import nn

    from reuselib.derivation.plan import Plan

HEAP = 0.1
"""Of the most that was taken in small blocks, what lies between them. An assumption, which the figures of steps that do
not train bear out (benchmarks/budget.py)."""
STIRRED = 0.7
"""Of what a pass forward and back takes in small blocks, what training takes besides, because blocks of other sizes
come with each batch and leave gaps. Chosen to fit benchmarks/budget.py, since the C library tells nothing of it."""


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


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What one step takes."""

    kind: str
    peak_bytes: int
    """Memory of a process, all included, mapped files too: what the system shows as its peak."""
    phase: str
    """When that is."""
    tensor_bytes: int
    """Of it, tensors: what it takes of a GPU's memory, if there is one."""
    num_parameters: int
    num_trainable: int
    num_steps: int
    """Optimizer steps; 0 if the step does not train."""
    parts: dict[str, int] = field(default_factory=dict[str, int])
    """Of tensors while training: `weights`, `gradients`, `moments`, `activations`; in bytes."""
    sharded_bytes: int | None = None
    """Of tensors while training where each process has a share of every weight (FSDP2)."""
    child_bytes: int
    """On disk."""
    checkpoint_bytes: int = 0
    """On disk for as long as the step lasts, if it lasts long enough for checkpoints."""
    lesson_bytes: int = 0
    """On disk: what teachers say about the rows."""
    unknown: str = ""
    """What could not be told, in words."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run takes, and what there is."""

    steps: tuple[Needed, ...]
    """Those that are still to be computed."""
    num_processes: int
    own_bytes: int
    """What a process takes before it has opened a model."""
    needed_bytes: int
    """Memory of all processes on this machine, without what can be let go of."""
    free_bytes: int | None
    """What all of them may take; None where the system does not tell."""
    disk_bytes: int
    """What the store grows by, checkpoints included."""
    output_bytes: int
    """What a copy of the last child takes besides."""
    free_disk_bytes: int

    @property
    def objections(self) -> tuple[str, ...]:
        """What does not fit, in words; nothing if all does."""
        return tuple(self._objections())

    def _objections(self) -> Iterator[str]:
        if self.free_bytes is not None and self.needed_bytes > self.free_bytes:
            yield (
                f"memory does not fit: needs {_told(self.needed_bytes)}, has {_told(self.free_bytes)}; "
                "lower `batch_size` or raise `gradient_accumulation_steps`, train less of the network, or share it"
                " among more machines"
            )
        if self.disk_bytes + self.output_bytes > self.free_disk_bytes:
            yield (
                f"the disk does not fit: needs {_told(self.disk_bytes)} in the store and {_told(self.output_bytes)} for"
                f" a copy, has {_told(self.free_disk_bytes)}; free some space, or choose another place with --store"
            )

    def require(self) -> None:
        """Do nothing if all fits.

        Raises:
            DoesNotFit: something does not.
        """
        if self.objections:
            raise DoesNotFit("\n".join(self.objections))

    def to_json(self) -> dict[str, Json]:
        """As `reuselib check --json` prints it."""
        return {
            **asdict(self),
            "steps": [asdict(each) for each in self.steps],
            "fits": not self.objections,
        }


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
    steps, heap, needed = list[Needed](), 0, 0
    for adapter in plan.steps[len(done) :]:
        phases, step = walk.take(adapter)
        peak, worst = 0, phases[0]
        for phase in phases:
            own = after if steps or phase.name in AFTERWARDS else before
            heap = max(heap, round(phase.held.small * (1 + HEAP) + phase.passing * STIRRED))
            resident = own + phase.held.large + heap
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
        disk_bytes=sum(each.child_bytes + each.lesson_bytes for each in steps)
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
        run = replace(self.run, trainings=[], looked=[], lessons=[])
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
            yield Phase("training", held, passing=each.step.passing)
        yield Phase("saving", after + (after if adapted.dtype != "float32" else Bytes()))
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


def _told(num_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
