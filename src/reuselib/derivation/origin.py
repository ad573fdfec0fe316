"""What a model was before it was compressed: the teacher that heals it, and what its losses are measured against."""

from __future__ import annotations

from collections.abc import Mapping

from reuselib.adapter import ModelRef
from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.chain import walk
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.store import Store
from reuselib.model.source import Pinned

COMPRESSING = ("prune", "quantize", "distill")
"""Relations of children that are meant to stand for their parent at a lower cost."""


def origin(manifest: Manifest, history: Mapping[str, bytes]) -> tuple[Manifest, str]:
    """The nearest ancestor before a run of compressing steps, and its uri ("" for the model itself).

    Steps after those, such as a fine-tuning that heals, are passed over. Only steps for the model's own task count,
    so a base that its publisher distilled is an origin like any other. A model that was not compressed is its own
    origin.

    Args:
        manifest: of the model.
        history: bytes of its ancestors' manifests, by SHA-256.

    Raises:
        SourceError: the lineage has a gap before the origin.
    """
    manifests = walk(manifest, history).manifests
    current, uri, compressed = manifest, "", False
    while current.parents and current.definition.task == manifest.definition.task:
        compressing = current.relation in COMPRESSING
        if compressed and not compressing:
            break
        compressed = compressed or compressing
        parent = current.parents[0]
        if parent.manifest_sha256 not in manifests:
            raise SourceError(
                f"the manifest of {parent.name}, which {manifest.name} was made from, is not in its lineage",
                expected="a lineage without gaps, to find the model before it was compressed",
                fix="name a teacher: `teachers: [{source: ...}]`",
            )
        current, uri = manifests[parent.manifest_sha256], parent.uri
    return (current, uri) if compressed else (manifest, "")


def find_origin(model: Pinned, store: Store) -> Pinned:
    """The origin of a model, with its files, whose bytes are compared with the record.

    Raises:
        SourceError: it is not at hand.
        IntegrityError: what is there is another model by now.
    """
    manifest, uri = origin(model.manifest, model.history)
    if not uri:
        return model
    digests = manifest.digests
    folder = store.locate(digests.dir_hash)
    if folder is None:
        raise SourceError(
            f"the model before it was compressed, {manifest.name} (dirHash {digests.dir_hash}), is not at hand",
            expected="that model in the store, or opened before with it",
            fix="get it and open it once with this store, or name a teacher: `teachers: [{source: ...}]`",
        )
    if take_inventory(folder, follow_links=True).digests != digests:
        raise IntegrityError(
            "PARENT_MISMATCH",
            f"{folder.name} is no longer {manifest.name} (dirHash {digests.dir_hash})",
            fix="get the model again, and open it once with this store",
        )
    return Pinned(ModelRef("", digest=digests.dir_hash), folder, uri, manifest, model.history)
