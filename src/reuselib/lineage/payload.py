"""The files and weights of a model folder against those that its record names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reuselib.errors import IntegrityError
from reuselib.lineage.compare import changed_files, changed_tensors
from reuselib.lineage.digest import file_digests, parse_checksums
from reuselib.lineage.inventory import Inventory, take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.notes import Notes
from reuselib.lineage.record import CHECKSUMS, TENSORS
from reuselib.lineage.rows import parse_rows


def compare_payload(
    folder: Path, manifest: Manifest, sidecars: Mapping[str, bytes], notes: Notes
) -> Inventory | None:
    """Compare files and weights with what is recorded, naming what differs as closely as possible.

    Args:
        folder: the model.
        manifest: its own.
        sidecars: those files of the record that have their recorded digest, by relative path.
        notes: takes what is found.

    Returns:
        What is there; None if it cannot be read at all.
    """
    inventory = notes.attempt(lambda: take_inventory(folder))
    changed: frozenset[str] = frozenset()
    if inventory is not None:
        changed = _check_tensors(manifest, sidecars, inventory, notes)
    else:
        # Weights that cannot be read are noted; what else was changed is still worth knowing.
        notes.unchecked.append("weights by tensor: their file cannot be read safely")
        files = notes.attempt(lambda: file_digests(folder))
        if files is None:
            return None
        inventory = Inventory(files, (), 0)
    _check_files(manifest, sidecars, inventory, changed, notes)
    return inventory


def _check_tensors(
    manifest: Manifest, sidecars: Mapping[str, bytes], inventory: Inventory, notes: Notes
) -> frozenset[str]:
    """Compare tensor by tensor; return the files whose difference is thereby named."""
    recorded = None
    if TENSORS in sidecars:
        recorded = notes.attempt(lambda: parse_rows(sidecars[TENSORS], path=TENSORS))
    errors = [] if recorded is None else list(changed_tensors(recorded, inventory.rows))
    # Of a file that came or went, `_check_files` says so once, rather than a line for each
    # tensor.
    both = {row.file for row in recorded or ()} & set(inventory.files)
    named = [error for error in errors if error.path in both]
    notes.note(*named)
    _check_identity(
        notes,
        "tensorHash1",
        manifest.digests.tensor_hash,
        inventory.digests.tensor_hash,
        explained=bool(errors),
    )
    notes.checked.append(f"weights: {len(inventory.rows)} tensors by digest")
    return frozenset(error.path for error in named)


def _check_files(
    manifest: Manifest,
    sidecars: Mapping[str, bytes],
    inventory: Inventory,
    changed: frozenset[str],
    notes: Notes,
) -> None:
    """Compare file by file."""
    recorded = None
    if CHECKSUMS in sidecars:
        recorded = notes.attempt(lambda: parse_checksums(sidecars[CHECKSUMS], path=CHECKSUMS))
    errors = []
    if recorded is not None:
        errors = list(changed_files(recorded, inventory.files, changed))
    for error in errors:
        notes.refuse_unrecorded(error)
    _check_identity(
        notes,
        "dirHash",
        manifest.digests.dir_hash,
        inventory.digests.dir_hash,
        explained=bool(errors or changed),
    )
    notes.checked.append(f"payload: {len(inventory.files)} files by digest")


def _check_identity(
    notes: Notes, algorithm: str, recorded: str, found: str, *, explained: bool
) -> None:
    """The identity decides; the lists behind it only serve to name what differs."""
    if recorded != found and not explained:
        what = f"the folder's {algorithm} is {found}, recorded {recorded}"
        notes.note(IntegrityError("DIGEST_MISMATCH", what))
