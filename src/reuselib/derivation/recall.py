"""What earlier steps found out and recorded beside their manifest, for later steps to use."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.chain import walk
from reuselib.lineage.record import byproduct_file

if TYPE_CHECKING:
    from pathlib import Path

    from reuselib.adapter import Json
    from reuselib.lineage.manifest import Manifest
    from reuselib.lineage.store import Store
    from reuselib.model.source import Pinned


def recall(model: Pinned, store: Store, name: str) -> Json:
    """A byproduct of the model, or else of the nearest in the line of its first parents that recorded one.

    Args:
        model: where to begin.
        store: where its ancestors are.
        name: of the byproduct, as the adapter named it.

    Returns:
        None if no manifest in that line records one.

    Raises:
        SourceError: it is recorded, but the model that holds it is not at hand.
        IntegrityError: the file is not what was recorded.
    """
    manifests = walk(model.manifest, model.history).manifests
    manifest: Manifest | None = model.manifest
    folder: Path | None = model.folder
    while manifest is not None:
        digest = _recorded(manifest, name)
        if digest is not None:
            return _read(folder, manifest, name, digest)
        if not manifest.parents:
            return None
        manifest = manifests.get(manifest.parents[0].manifest_sha256)
        folder = None if manifest is None else _find(manifest, store)
    return None


def _find(manifest: Manifest, store: Store) -> Path | None:
    # by derivation first: two models of the same bytes may have found out different things
    internal = manifest.definition.internal
    child = store.find(internal.derivation_id) if internal is not None else None
    return child or store.locate(manifest.digests.dir_hash)


def _recorded(manifest: Manifest, name: str) -> str | None:
    path = byproduct_file(name)
    found = [each for each in manifest.details.byproducts if each.name == path]
    return found[0].digest.get("sha256") if found else None


def _read(folder: Path | None, manifest: Manifest, name: str, digest: str) -> Json:
    path = byproduct_file(name)
    if folder is None or not (folder / path).is_file():
        raise SourceError(
            f"{manifest.name} (dirHash {manifest.digests.dir_hash}) recorded its {name}, but is not at hand",
            expected="that model in the store, or opened before with it",
            fix="get the model, and open it once with this store",
        )
    data = (folder / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise IntegrityError(
            "DIGEST_MISMATCH",
            f"{path} of {manifest.name} was changed after it was recorded",
            path=path,
            fix="get the model again",
        )
    return canonical.loads(data, path=path)
