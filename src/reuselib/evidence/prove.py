"""Whether a child's weights are what its manifest says was done to its parents' weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Finding
from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.tensors import Tensors
from reuselib.model.opening import read_manifest, recorded_adapter
from reuselib.model.weights import own_weights, parent_weights

if TYPE_CHECKING:
    from reuselib.lineage.store import Store


def prove(folder: Path, store: Store) -> tuple[Finding, ...]:
    """Check one edge of the lineage: the child in `folder` against its parents' weights.

    Raises:
        IntegrityError: the folder has no manifest, so it claims nothing.
        SourceError: a parent is not at hand.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise IntegrityError(
            "MISSING_LINEAGE", f"{folder} has no lineage/manifest.json, so there is no claim to prove"
        )
    if manifest.definition.internal is None:
        return (Finding("a root has no parent to be compared with", None),)
    places = []
    for parent in manifest.parents:
        place = store.locate(parent.digests.dir_hash)
        if place is None:
            raise SourceError(
                f"the parent '{parent.name}' ({parent.uri}, dirHash {parent.digests.dir_hash}) is not at hand",
                expected="every parent in the store, or seen before by it",
                fix="get the parent and open it once with this store",
            )
        places.append(place)
    parents = [parent_weights(manifest, places[0], store)]
    parents += [own_weights(place, store) for place in places[1:]]
    structure = manifest.definition.internal.structure
    return tuple(recorded_adapter(manifest).prove(parents, Tensors(folder), structure))
