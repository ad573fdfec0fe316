"""What a run would find in the store and what it would have to compute, told without doing or writing anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.derivation.plan import Plan, as_parent, intact
from reuselib.errors import ReuseError
from reuselib.lineage.checkpoints import Checkpoints, Title, read
from reuselib.lineage.manifest import Manifest

if TYPE_CHECKING:
    from reuselib.adapter import Json


@dataclass(frozen=True)
class Forecast:
    """Of one step."""

    adapter: str
    """Its kind."""
    derivation_id: str | None
    """Of the child; None where that depends on a child that is not there yet."""
    folder: Path | None = None
    """Of the child, or where it will be; None where the id is not known."""
    reused: bool = False
    """Whether it is there."""
    packed: bool = False
    """It is there, and will be unpacked when it is needed. Its bytes are compared then, not before."""
    in_progress: bool = False
    """Another run is making it now; this one would wait for it."""
    checkpoint: Title | None = None
    """The furthest that is valid of a training that was interrupted; `--resume` decides whether it is used."""

    def to_json(self) -> dict[str, Json]:
        """As printed with `--json`."""
        point = self.checkpoint
        told = (
            {"training": point.training, "step": point.step, "num_steps": point.num_steps}
            if point
            else None
        )
        return {
            "adapter": self.adapter,
            "id": self.derivation_id,
            "folder": str(self.folder) if self.folder else None,
            "reused": self.reused,
            "packed": self.packed,
            "in_progress": self.in_progress,
            "checkpoint": dict(told) if told else None,
        }


def forecast(plan: Plan) -> tuple[Forecast, ...]:
    """What each step of a plan would be.

    A child's id depends on its parent's bytes, so no id is known after the first step that is missing.

    Raises:
        StoreError: a child is there, but its bytes do not match its manifest.
    """
    store, parent = plan.store, plan.base
    found: list[Forecast] = []
    for adapter in plan.steps:
        key = plan.id(adapter, parent)
        folder, record = store.models / key, store.record(key)
        if record is None:
            found.append(_missing(plan, adapter.kind, key))
            break
        packed = record != folder
        found.append(Forecast(adapter.kind, key, folder, reused=True, packed=packed))
        parent = as_parent(record if packed else intact(record), Manifest.read(record))
    later = plan.steps[len(found) :]
    return (*found, *(Forecast(adapter.kind, None) for adapter in later))


def _missing(plan: Plan, kind: str, key: str) -> Forecast:
    store = plan.store
    return Forecast(
        kind,
        key,
        store.models / key,
        in_progress=key in store.claims.held(),
        checkpoint=_furthest(Checkpoints(store.path, key)),
    )


def _furthest(kept: Checkpoints) -> Title | None:
    for name in kept.names():
        try:
            return read(kept.folder / name)[0]
        except ReuseError:
            continue  # damaged, so a run would pass it over as well
    return None
