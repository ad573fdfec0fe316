"""One step: a child computed and written, ready to be measured and recorded."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapted, Adapter, Json
from reuselib.derivation.session import Session
from reuselib.derivation.streaming import make_streamed
from reuselib.errors import LawBroken
from reuselib.measure.cost import Cost, cost
from reuselib.measure.memory import give_back, peak_memory
from reuselib.model.opening import Opened

if TYPE_CHECKING:
    from torch import nn

    from reuselib.lineage.trail import Trail

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step leaves behind besides the payload."""

    opened: Opened
    """The child in memory, ready for the next step."""
    structure: Json
    fresh: frozenset[str]
    prefix: str
    """How the network before the step differed from its folder, see `Opened`."""
    renamed: Mapping[str, str]
    """Likewise."""
    names: frozenset[str]
    """Tensors of the network before the step."""
    figures: Mapping[str, float]
    """What the adapter found worth recording."""
    byproducts: Mapping[str, Json]
    """What later steps may use, see `Adapted`."""
    reference: Mapping[str, float | str]
    """What the task's simple method reaches, see `Task.reference`."""
    settled: Mapping[str, Json]
    """In what way the loop ran, such as its precision and device."""
    trails: tuple[Trail, ...]
    """Digests of the state on the way, of each training."""
    cost: Cost
    started: datetime
    finished: datetime
    seconds: float
    """Wall time of the adapter alone, without measuring and saving."""
    peak_bytes: int | None
    """The most memory that this process held while the adapter worked; None where the system does not tell."""


def perform(
    adapter: Adapter, parent: Opened, session: Session, *, identity: tuple[str, ...], folder: Path
) -> Outcome:
    """Apply `adapter` to the network in `parent`, which is used up, and write the child's payload to `folder`.

    Args:
        adapter: what to do.
        parent: the network before; if it has no weights in memory, neither has the child.
        session: the adapter's view of task, rows and loop.
        identity: of the parent, see `derivation.plan.identity`.
        folder: empty; receives the payload.

    Raises:
        IncompatibleStep: the adapter cannot be applied.
        LawBroken: it made a network that could never be loaded again.
    """
    from reuselib.training.seeds import seeded

    began = datetime.now(UTC)
    shapes = _shapes(parent.module)
    started = time.perf_counter()
    with seeded(session.seed), peak_memory() as peak:
        adapted = _adapted(adapter, parent, session.with_fresh(parent.fresh), folder)
    give_back()  # or what follows comes on top of all that the adapter ever took
    seconds = time.perf_counter() - started
    # a module keeps its marks from earlier steps, so they only count if this one trained
    learned = adapted.module.parameters() if session.settled else ()
    num_trainable = sum(p.numel() for p in learned if p.requires_grad)
    module = adapted.module.eval()
    form = adapter.follow(parent.form)
    if form == parent.form:
        _refuse_lost_structure(adapter, shapes, _shapes(module))
    if parent.weights is not None:
        pass  # the payload was written as it was made
    elif adapter.whole:
        session.task.save(_as_stored(module, adapted.dtype), parent.processor, folder)
    else:
        adapter.save(module, folder)
    return Outcome(
        opened=Opened(
            module,
            parent.processor,
            form,
            rebuild=(
                *session.loaded.get(adapted.module, parent.rebuild),
                *own_structure(adapter, adapted),
            ),
            requires=() if adapter.whole else identity,
        ),
        structure=adapted.structure,
        fresh=parent.fresh,
        prefix=parent.prefix,
        renamed=parent.renamed,
        names=frozenset(shapes),
        figures=adapted.metrics,
        byproducts=adapted.byproducts,
        reference=session.reference(),
        settled=dict(session.settled),
        trails=tuple(session.trails),
        cost=cost(module, folder, num_trainable=num_trainable),
        started=began,
        finished=datetime.now(UTC),
        seconds=seconds,
        peak_bytes=peak.num_bytes,
    )


def _adapted(adapter: Adapter, parent: Opened, session: Session, folder: Path) -> Adapted:
    if parent.weights is not None:
        return make_streamed(adapter, parent, session, folder)
    return adapter.adapt(parent.module, session)


def _as_stored(module: nn.Module, dtype: str) -> nn.Module:
    """The network as its folder holds it: itself, or a copy in another type of numbers."""
    import torch

    if dtype == "float32":
        return module
    return copy.deepcopy(module).to(getattr(torch, dtype))


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def own_structure(adapter: Adapter, adapted: Adapted) -> tuple[Json, ...]:
    """What later loads must replay. An adapter that is not whole replays its own, over its base."""
    if adapted.stock or not adapter.whole or not _rebuilds(adapter) or adapted.structure is None:
        return ()
    return ({"adapter": adapter.describe(), "structure": adapted.structure},)


def _rebuilds(adapter: Adapter) -> bool:
    return type(adapter).rebuild is not Adapter.rebuild


def _refuse_lost_structure(adapter: Adapter, before: Shapes, after: Shapes) -> None:
    """Fail now rather than when somebody loads the child."""
    if before == after or _rebuilds(adapter):
        return
    name = min(set(before.items()) ^ set(after.items()))[0]
    raise LawBroken(
        "rebuild",
        f"'{adapter.kind}' changed the network (tensor {name}: {before.get(name)} before, {after.get(name)} after), "
        "but says nothing about how to rebuild it, so the child could never be loaded",
        fix=f"override rebuild() in {type(adapter).__name__} and hand back a structure",
    )
