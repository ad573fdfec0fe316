"""Whether a child's weights are what its manifest says was done to its parents' weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, Finding, Json, Weights
from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.tensors import Tensors
from reuselib.model.opening import read_manifest, recorded_adapter
from reuselib.model.weights import own_weights, parent_weights

if TYPE_CHECKING:
    from reuselib.lineage.descriptors import Parent
    from reuselib.lineage.store import Store


@dataclass(frozen=True)
class Claims:
    """One edge of the lineage, with everything at hand to check it."""

    adapter: Adapter
    parents: Sequence[Weights]
    child: Weights
    structure: Json

    def check(self, child: Weights) -> Iterable[Finding]:
        """What holds between the parents and `child`, if that were the child."""
        return self.adapter.prove(self.parents, child, self.structure)


def prove(folder: Path, store: Store) -> tuple[Finding, ...]:
    """Check one edge of the lineage: the child in `folder` against its parents' weights.

    Raises:
        IntegrityError: the folder has no manifest or is a root, so it claims nothing.
        SourceError: a parent is not at hand.
    """
    case = claims(folder, store)
    recorded = Manifest.read(folder).digests
    # what was trained is free to differ from the parent, but not from the record
    own = Finding(
        "the child's files are those that its manifest records",
        take_inventory(folder).digests == recorded,
        f"dirHash {recorded.dir_hash}",
    )
    return (own, *case.check(case.child))


def claims(folder: Path, store: Store) -> Claims:
    """What a child claims, and the weights to check it with; raises as `prove`."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.definition.internal is None:
        raise IntegrityError(
            "MISSING_LINEAGE",
            f"{folder} claims no parent, so there is nothing to prove",
            fix="name the folder of a derived model",
        )
    places = [_place(parent, store) for parent in manifest.parents]
    return Claims(
        recorded_adapter(manifest),
        [
            parent_weights(manifest, places[0], store),
            *(own_weights(each, store) for each in places[1:]),
        ],
        Tensors(folder),
        manifest.definition.internal.structure,
    )


def _place(parent: Parent, store: Store) -> Path:
    place = store.locate(parent.digests.dir_hash)
    if place is None:
        raise SourceError(
            f"the parent '{parent.name}' ({parent.uri}, dirHash {parent.digests.dir_hash}) is not at hand",
            expected="every parent in the store, or opened before with it",
            fix="get the parent and open it once with this store",
        )
    if take_inventory(place, follow_links=True).digests != parent.digests:
        raise IntegrityError(
            "PARENT_MISMATCH",
            f"{place} is no longer the parent '{parent.name}' (dirHash {parent.digests.dir_hash})",
            fix="get the parent again",
        )
    return place
