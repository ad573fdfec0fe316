"""`derive`: the one place that turns a model into another model and leaves the evidence with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reuselib.adapter import Adapter, ModelRef
from reuselib.measure.gates import Gate
from reuselib.measure.latency import Protocol
from reuselib.progress import Report
from reuselib.task import Task

if TYPE_CHECKING:
    from torch import nn

    from reuselib.data import Data, Splits
    from reuselib.model import Model


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What may differ between two runs without making another child."""

    store: Path | None = None
    """Folder of finished children; default: REUSELIB_STORE, else the user's cache folder."""
    output: Path | None = None
    """Where to put a copy of the last child."""
    overwrite: bool = False
    """Replace `output` if it holds another model."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers by accelerate's names, such as `tensorboard`."""
    logging_dir: Path | None = None
    """Where trackers write; default: `runs` in the folder you are in."""
    report: Report | None = None
    """Called with the progress of the run."""
    keep_states: int = 0
    """How many states of each training to keep in the store, spread evenly, so that `reproduce` can begin at them. Each
    takes about three times the room of what is trained."""
    protocol: Protocol | None = None
    """How times are taken; default: `reuselib.measure.latency.STANDARD`."""
    resume: Literal["auto", "no"] | Path = "auto"
    """Where a training that was interrupted goes on: at its newest checkpoint that is valid (`auto`), nowhere (`no`:
    it begins anew), or at the checkpoint in a folder, which must be of this very step."""
    checkpoint_seconds: float | None = 300.0
    """How long a training goes on at most without a checkpoint; None for no checkpoints but when it is interrupted."""
    keep_checkpoints: int = 2
    """How many of a training stay in the store until its child is finished, the newest."""
    cache_bytes: int = 8 * 2**30
    """Room on disk for outputs of frozen blocks, which are computed once and used in every epoch. A training whose
    outputs need more runs them in every epoch, which makes another child, equal but for rounding; the record tells."""


def derive(  # noqa: PLR0913 - the fields of a recipe, and what does not change the child
    base: ModelRef | Model | nn.Module | str | Path,
    steps: Adapter | Sequence[Adapter],
    *,
    task: Task,
    data: Data | Splits | None = None,
    seed: int = 0,
    gates: Sequence[Gate] = (),
    runtime: Runtime = Runtime(),
) -> Model:
    """Apply `steps` in order and return the last child; `base` stays as it is.

    Every step makes one child in the store, with its lineage manifest. What the store holds already is not computed
    again.

    Args:
        base: a reference, its source alone, a model that was derived before, or any `torch.nn.Module` (with a
            `ModuleTask`).
        steps: one adapter, or several.
        task: what the model is for.
        data: rows to learn from and to measure on.
        seed: where all chance comes from.
        gates: what the last child must reach; it stays in the store if it does not.
        runtime: store, output, progress: what does not change the child.

    Raises:
        GateFailed: the last child misses a gate.
        ReuseError: with what happened, what was expected and how to fix it. The store then holds whole children only.
    """
    from reuselib.derivation.execution import execute
    from reuselib.derivation.plan import plan

    settled = plan(base, steps, task=task, data=data, seed=seed, gates=gates, store=runtime.store)
    return execute(settled, runtime).model()
