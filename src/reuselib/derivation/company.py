"""Several processes over one plan: the first does everything, and calls the others when it trains.

Only training is worth sharing out, and only training is entered by all. Whatever else a step does, such as calibrating,
measuring and writing, is the first process's own, with all cores of the machine: so its result is the same bits for
any number of processes. The others wait without a network in memory. When the step comes to its training they open
the same parent, do again what leads up to it, and join in.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.derivation.link import Link
from reuselib.derivation.plan import Plan, as_parent, nameless, with_references
from reuselib.derivation.session import Encoded, begin, equipped
from reuselib.derivation.sharing import Shelf
from reuselib.errors import StoreError, TrainingError
from reuselib.lineage import canonical
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.scratch import scratch
from reuselib.training.world import World, together

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.derivation.derive import Runtime
    from reuselib.model.source import Pinned

PATIENCE = 30.0
"""Seconds until what one machine wrote to a network disk is seen by another at the latest."""


@dataclass
class Company:
    """Those that train one step together."""

    world: World
    step: int
    """Its place in the plan."""
    shelf: Shelf
    called: bool = False
    """Whether the others know that there is something to train."""

    @contextmanager
    def training(self, encoded: Encoded) -> Iterator[None]:
        """Train together within; the first process calls the others the first time.

        Args:
            encoded: what this process has encoded so far, which the others are to read.
        """
        if self.world.size == 1:
            yield
            return
        if not self.called:
            self.shelf.place(encoded.done.values())
            self.world.broadcast({"train": self.step})
            self.called = True
        self.world.barrier()
        with together():
            yield


@contextmanager
def gathered(plan: Plan, world: World, ids: list[str]) -> Iterator[Shelf]:
    """In the first process, before it computes anything: see to it that all are about the same, with one store.

    Args:
        plan: of this process.
        world: all processes.
        ids: of the children that the store has already.
    """
    busy = len(ids) < len(plan.steps)
    folder = scratch(plan.store.tmp) if busy and world.size > 1 else nullcontext(plan.store.tmp)
    with folder as place:
        told: dict[str, Json] = {
            "plan": fingerprint(plan),
            "shelf": place.name if busy else "",
            "made": list(ids),
        }
        world.broadcast(told)
        yield Shelf(place)


def announce(world: World, derivation_id: str) -> None:
    """In the first process: the next child is in the store."""
    world.broadcast({"made": derivation_id})


def assist(plan: Plan, runtime: Runtime, world: World) -> Iterator[tuple[Path, bool]]:
    """In every other process: train when the first one calls; each child as it comes, and whether it was there before.

    Raises:
        TrainingError: this process was given another recipe, or other rows.
        StoreError: its store is another folder.
        PeerFailed: another process failed.
    """
    told = _said(world)
    if told["plan"] != fingerprint(plan):
        raise TrainingError(
            f"process {world.rank} was given another recipe than the first process, or other rows",
            expected="the same recipe, base and data in all processes",
            fix="put them where every machine finds the same files",
        )
    shelf = Shelf(plan.store.tmp / str(told["shelf"]))
    if told["shelf"]:
        _require_shared(plan, shelf)
    parent, step = plan.base, 0
    reused = [str(each) for each in told["made"]]  # type: ignore[union-attr]
    while step < len(plan.steps):
        told = {"made": reused[step]} if step < len(reused) else _said(world)
        if "train" in told:
            _train(plan, runtime, parent, Company(world, step, shelf, called=True))
            continue
        folder = _found(plan, str(told["made"]))
        yield folder, step < len(reused)
        parent, step = as_parent(folder, Manifest.read(folder)), step + 1


def fingerprint(plan: Plan) -> str:
    """Digest of everything that decides about the children of a plan."""
    steps = [with_references(each, nameless).describe() for each in plan.steps]
    first: Json = plan.id(plan.steps[0], plan.base)
    return hashlib.sha256(canonical.dumps([first, *steps])).hexdigest()


def _train(plan: Plan, runtime: Runtime, parent: Pinned, company: Company) -> None:
    """Do what the first process did up to the training, and then that with it; nothing of it is kept."""
    from reuselib.training.seeds import seeded

    adapter = plan.steps[company.step]
    opened, session = begin(plan, parent.folder)
    encoded = Encoded(plan.task, opened.processor, elsewhere=company.shelf.fetch)
    session = replace(equipped(session, runtime), encoded=encoded, company=company)
    session = Link(plan, adapter, parent).session(session, opened.form)
    with seeded(plan.seed):
        adapter.adapt(opened.module, session.with_fresh(opened.fresh))


def _said(world: World) -> dict[str, Json]:
    told = world.broadcast()
    assert isinstance(told, dict)
    return told


def _found(plan: Plan, derivation_id: str) -> Path:
    end = time.monotonic() + PATIENCE
    while (folder := plan.store.find(derivation_id)) is None:
        if time.monotonic() > end:
            raise _other_store(plan)
        time.sleep(0.2)
    return folder


def _require_shared(plan: Plan, shelf: Shelf) -> None:
    end = time.monotonic() + PATIENCE
    while not shelf.folder.is_dir():
        if time.monotonic() > end:
            raise _other_store(plan)
        time.sleep(0.2)


def _other_store(plan: Plan) -> StoreError:
    return StoreError(
        f"the store at {plan.store.path} is not the one that the first process writes to",
        expected="one folder that the processes of all machines see",
        fix="name a folder on a shared disk with --store or REUSELIB_STORE",
    )
