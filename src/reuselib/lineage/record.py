"""Writing the record into a model folder that already holds its payload."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.chain import ANCESTORS, walk
from reuselib.lineage.definition import Definition
from reuselib.lineage.descriptors import Descriptor
from reuselib.lineage.details import Details
from reuselib.lineage.digest import checksums
from reuselib.lineage.disk import writing
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.rows import dump_rows
from reuselib.lineage.trail import TRAIL, Trail, dump_trails

if TYPE_CHECKING:
    from reuselib.adapter import Json

CHECKSUMS = "lineage/files.sha256"
"""The list behind `dirHash`; `sha256sum -c lineage/files.sha256` in the model folder checks it without reuselib."""
TENSORS = "lineage/tensors.jsonl"
METRICS = "lineage/metrics.json"
ENVIRONMENT = "lineage/environment.json"

_KINDS: Mapping[str, tuple[str, str]] = {
    CHECKSUMS: ("file-inventory", "text/plain"),
    TENSORS: ("tensor-inventory", "application/vnd.reuselib.tensors+jsonl"),
    METRICS: ("metrics", "application/vnd.reuselib.metrics+json"),
    ENVIRONMENT: ("environment", "application/vnd.reuselib.environment+json"),
    TRAIL: ("trail", "application/vnd.reuselib.trail+jsonl"),
}
_BYPRODUCT = ("finding", "application/json")


@dataclass(frozen=True)
class Draft:
    """A manifest before the folder is measured: `record` adds the digests and the byproducts."""

    name: str
    definition: Definition
    details: Details = field(default_factory=Details)
    annotations: Mapping[str, Json] = field(default_factory=dict)
    trails: tuple[Trail, ...] = ()
    """Of what was trained, in order; none if nothing was."""


def record(
    folder: Path,
    draft: Draft,
    *,
    metrics: Mapping[str, Json],
    environment: Mapping[str, Json],
    ancestors: Mapping[str, bytes],
    byproducts: Mapping[str, Json] | None = None,
) -> Manifest:
    """Write `lineage/` into a folder and return the manifest, as reading it back gives it.

    The manifest is written last: a folder that has one is complete.

    Args:
        folder: holds the payload and no record yet.
        draft: what was done.
        metrics: figures before and after.
        environment: where it was done, see `environment`.
        ancestors: the manifests of all ancestors by SHA-256, see `history`; those not reached are
        left out.
        byproducts: findings that later derivations may use; each becomes `lineage/<name>.json`.

    Raises:
        ValueError: a byproduct has a name that cannot be that of a file of its own.
        IntegrityError: the payload or an ancestor is not sound, or a parent's manifest is not at
        hand. StoreError: the folder cannot be written.
    """
    inventory = take_inventory(folder)
    if not inventory.rows:
        raise IntegrityError(
            "MISSING_FILE",
            f"{folder.name} holds no weights: no tensor in any *.safetensors file at its top",
            fix="save the weights as safetensors before recording them",
        )
    files = {
        CHECKSUMS: checksums(inventory.files),
        TENSORS: dump_rows(inventory.rows),
        METRICS: canonical.dumps(metrics),
        ENVIRONMENT: canonical.dumps(environment),
    }
    if draft.trails:
        files[TRAIL] = dump_trails(draft.trails)
    files.update(
        {byproduct_file(name): canonical.dumps(each) for name, each in (byproducts or {}).items()}
    )
    manifest = Manifest(
        name=draft.name,
        digests=inventory.digests,
        definition=draft.definition,
        details=_with_byproducts(draft.details, files),
        annotations=draft.annotations,
    )
    # What is written is what can be read: nothing wrong may only come out when a stranger verifies
    # it.
    manifest = Manifest.parse(manifest.payload(), path=MANIFEST)
    files.update(_ancestor_files(manifest, ancestors))
    with writing(folder):
        (folder / ANCESTORS).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST).write_bytes(manifest.payload())
    return manifest


def byproduct_file(name: str) -> str:
    """Where a byproduct is, in a model folder.

    Raises:
        ValueError: the name is not lower-case letters, digits and `-`, or one of the record's own files has it.
    """
    path = f"lineage/{name}.json"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", name) or path in (*_KINDS, MANIFEST):
        raise ValueError(
            f"a byproduct cannot be named {name!r}: use lower-case letters, digits and '-', and none of "
            "manifest, metrics and environment"
        )
    return path


def _with_byproducts(details: Details, files: Mapping[str, bytes]) -> Details:
    byproducts = tuple(
        Descriptor(
            name=name,
            digest={"sha256": hashlib.sha256(data).hexdigest()},
            role=_KINDS.get(name, _BYPRODUCT)[0],
            media_type=_KINDS.get(name, _BYPRODUCT)[1],
        )
        for name, data in files.items()
    )
    return Details(
        versions=details.versions,
        started=details.started,
        finished=details.finished,
        invocation_id=details.invocation_id,
        byproducts=byproducts,
    )


def _ancestor_files(manifest: Manifest, ancestors: Mapping[str, bytes]) -> dict[str, bytes]:
    chain = walk(manifest, ancestors)
    if chain.missing:
        parent = chain.missing[0]
        raise IntegrityError(
            "MISSING_PARENT",
            f"the manifest of parent {parent.name!r} ({parent.manifest_sha256}) is not at hand",
            fix="hand over `history(folder)` of a derived parent, or the pinned manifest of a base",
        )
    return {f"{ANCESTORS}/{digest}.json": ancestors[digest] for digest in chain.manifests}
