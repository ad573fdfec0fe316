"""Forged records: what somebody can write who holds a model folder and no key. For tests of what finds them out.

A forger keeps the record consistent: every digest fits again afterwards, so only what the record *claims* is false.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.lineage import canonical
from reuselib.lineage.digest import checksums
from reuselib.lineage.headers import headers
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.record import CHECKSUMS, TENSORS
from reuselib.lineage.rows import dump_rows
from reuselib.lineage.tensors import Tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

Statement = dict[str, Any]


def restate(folder: Path, change: Callable[[Statement], None] = lambda _: None) -> Manifest:
    """Write the record of a folder anew, so that every digest fits what is in the folder now.

    Args:
        folder: with a record, which need not fit any more.
        change: edits the statement in place, last of all; see `part`.
    """
    inventory = take_inventory(folder)
    (folder / CHECKSUMS).write_bytes(checksums(inventory.files))
    (folder / TENSORS).write_bytes(dump_rows(inventory.rows))
    statement = canonical.loads((folder / MANIFEST).read_bytes())
    assert isinstance(statement, dict)
    statement["subject"][0]["digest"] = inventory.digests.to_json()
    for item in statement["predicate"]["runDetails"].get("byproducts", ()):
        data = (folder / item["name"]).read_bytes()
        item["digest"] = {"sha256": hashlib.sha256(data).hexdigest()}
    change(statement)
    (folder / MANIFEST).write_bytes(canonical.dumps(statement))
    return Manifest.read(folder)


def retouch(folder: Path, changes: Mapping[str, Tensor | None]) -> Manifest:
    """Replace, add or (with None) remove tensors of a folder, and write its record anew."""
    tensors = Tensors(folder)
    places = {name: info.file for name, info in headers(folder).items()}
    default = min(places.values())
    kept = {name: tensors[name].clone() for name in tensors}
    for name, value in changes.items():
        if value is None:
            del kept[name]
        else:
            kept[name] = value
    for file in sorted({places.get(name, default) for name in kept}):
        own = {name: kept[name] for name in kept if places.get(name, default) == file}
        save_tensors(own, folder / file, {"format": "pt"})
    return restate(folder)


def part(statement: Statement, name: str) -> dict[str, Any]:
    """A part of a statement: `externalParameters` or `internalParameters`."""
    return statement["predicate"]["buildDefinition"][name]
