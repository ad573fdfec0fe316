"""Whether a model folder is what its manifest says: every byte, with nothing opened that could run.

Hashes and headers only; no weights are loaded and torch is not imported. The answer always includes
what was not checked, because a reader takes silence for a yes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from reuselib.errors import IntegrityError, ReuseError, SourceError
from reuselib.lineage.chain import ANCESTORS, read_ancestors, walk
from reuselib.lineage.compare import changed_files, changed_tensors
from reuselib.lineage.digest import all_files, file_digests, is_payload, parse_checksums
from reuselib.lineage.inventory import Inventory, take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.policy import Policy
from reuselib.lineage.record import CHECKSUMS, TENSORS
from reuselib.lineage.report import Problem, Report
from reuselib.lineage.rows import parse_rows
from reuselib.lineage.sniff import unsafe_format

T = TypeVar("T")

_MAX_SIDECAR = 2**28
_NEVER_CHECKED = (
    "who made it: no signature was looked at",
    "whether the parents' weights lead to these: they were not compared",
    "whether the recorded metrics can be measured again",
    "README.md: the model card is a view, not part of the record",
)


def verify(folder: Path, *, policy: Policy | None = None) -> Report:
    """Check a model folder against its manifest.

    Raises:
        SourceError: there is no such folder.
    """
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}", expected="a model folder", fix="check the path")
    return _Verification(folder).run()


@dataclass
class _Verification:
    """One run over one folder: a step that fails is noted, and the steps that do not need it go on."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def run(self) -> Report:
        # Paths first: nothing below may follow a link out of the folder.
        names = self._attempt(lambda: all_files(self.folder))
        if names is None:
            return self._report()
        self.checked.append("paths: only plain files with portable names")
        payload = [name for name in names if is_payload(name)]
        self._check_formats(payload)
        if MANIFEST not in names:
            self._note(IntegrityError("MISSING_LINEAGE", f"there is no {MANIFEST}", path=MANIFEST))
            return self._report()
        manifest = self._attempt(lambda: Manifest.read(self.folder))
        if manifest is None:
            return self._report()
        self.checked.append("manifest: form, fields and digests")
        sidecars = self._check_byproducts(manifest, names)
        inventory = self._check_payload(manifest, sidecars)
        self._check_ancestors(manifest, names)
        return self._report(manifest, inventory)

    def _check_formats(self, payload: Iterable[str]) -> None:
        for name in payload:
            if why := self._attempt(partial(unsafe_format, self.folder / name)):
                self._note(IntegrityError("UNSAFE_FORMAT", f"{name}: {why}", path=name))
        self.checked.append("formats: no pickles and no code, judged by content")

    def _check_byproducts(self, manifest: Manifest, names: Iterable[str]) -> dict[str, bytes]:
        """Compare the other files of the record with their digests; return the sound ones."""
        sound: dict[str, bytes] = {}
        present = {name for name in names if name.startswith("lineage/")}
        expected = {item.name: item.digest.get("sha256") for item in manifest.details.byproducts}
        for name, digest in expected.items():
            if name not in present:
                self._note(
                    IntegrityError("MISSING_FILE", f"{name} is recorded but not there", path=name)
                )
                continue
            data = self._attempt(partial(self._read, name))
            if data is not None and hashlib.sha256(data).hexdigest() == digest:
                sound[name] = data
            elif data is not None:
                self._note(IntegrityError("DIGEST_MISMATCH", f"{name} was changed", path=name))
        for name in sorted(present - set(expected) - {MANIFEST}):
            if not name.startswith(f"{ANCESTORS}/"):
                self._note(IntegrityError("UNSIGNED_FILE", f"{name} is not recorded", path=name))
        self.checked.append(f"record: {len(expected)} files of lineage/ by digest")
        return sound

    def _check_payload(self, manifest: Manifest, sidecars: Mapping[str, bytes]) -> Inventory | None:
        """Compare files and weights with what is recorded, naming what differs as closely as possible."""
        inventory = self._attempt(lambda: take_inventory(self.folder))
        changed: frozenset[str] = frozenset()
        if inventory is not None:
            changed = self._check_tensors(manifest, sidecars, inventory)
        else:
            # Weights that cannot be read are noted; what else was changed is still worth knowing.
            self.unchecked.append("weights by tensor: their file cannot be read safely")
            files = self._attempt(lambda: file_digests(self.folder))
            if files is None:
                return None
            inventory = Inventory(files, (), 0)
        self._check_files(manifest, sidecars, inventory, changed)
        return inventory

    def _check_tensors(
        self, manifest: Manifest, sidecars: Mapping[str, bytes], inventory: Inventory
    ) -> frozenset[str]:
        """Compare tensor by tensor; return the files whose difference is thereby named."""
        recorded = None
        if TENSORS in sidecars:
            recorded = self._attempt(lambda: parse_rows(sidecars[TENSORS], path=TENSORS))
        errors = [] if recorded is None else list(changed_tensors(recorded, inventory.rows))
        # Of a file that came or went, `_check_files` says so once, rather than a line for each
        # tensor.
        both = {row.file for row in recorded or ()} & set(inventory.files)
        named = [error for error in errors if error.path in both]
        self._note(*named)
        self._check_identity(
            "tensorHash1",
            manifest.digests.tensor_hash,
            inventory.digests.tensor_hash,
            explained=bool(errors),
        )
        self.checked.append(f"weights: {len(inventory.rows)} tensors by digest")
        return frozenset(error.path for error in named)

    def _check_files(
        self,
        manifest: Manifest,
        sidecars: Mapping[str, bytes],
        inventory: Inventory,
        changed: frozenset[str],
    ) -> None:
        """Compare file by file."""
        recorded = None
        if CHECKSUMS in sidecars:
            recorded = self._attempt(lambda: parse_checksums(sidecars[CHECKSUMS], path=CHECKSUMS))
        errors = []
        if recorded is not None:
            errors = list(changed_files(recorded, inventory.files, changed))
        self._note(*errors)
        self._check_identity(
            "dirHash",
            manifest.digests.dir_hash,
            inventory.digests.dir_hash,
            explained=bool(errors or changed),
        )
        self.checked.append(f"payload: {len(inventory.files)} files by digest")

    def _check_identity(
        self, algorithm: str, recorded: str, found: str, *, explained: bool
    ) -> None:
        """The identity decides; the lists behind it only serve to name what differs."""
        if recorded != found and not explained:
            what = f"the folder's {algorithm} is {found}, recorded {recorded}"
            self._note(IntegrityError("DIGEST_MISMATCH", what))

    def _check_ancestors(self, manifest: Manifest, names: Iterable[str]) -> None:
        ancestors = self._attempt(lambda: read_ancestors(self.folder))
        chain = self._attempt(lambda: walk(manifest, ancestors or {}))
        if chain is None:
            return
        for parent in chain.missing:
            self.unchecked.append(
                f"MISSING_PARENT: the history of {parent.name!r}, whose manifest is not at hand"
            )
        reached = {f"{ANCESTORS}/{digest}.json" for digest in chain.manifests}
        for name in names:
            if name.startswith(f"{ANCESTORS}/") and name not in reached:
                what = f"{name} is no manifest of an ancestor"
                self._note(IntegrityError("PARENT_STATEMENT_MISMATCH", what, path=name))
        self.checked.append(f"history: {len(chain.manifests)} manifests of ancestors by digest")

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        if path.stat().st_size > _MAX_SIDECAR:
            raise IntegrityError("LIMIT", f"{name} is larger than {_MAX_SIDECAR} bytes", path=name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """The result of a step, or None if it cannot be done; why is noted."""
        try:
            return step()
        except ReuseError as error:
            self._note(error)
            return None

    def _note(self, *errors: ReuseError) -> None:
        self.problems.extend(Problem.of(error) for error in errors)

    def _report(
        self, manifest: Manifest | None = None, inventory: Inventory | None = None
    ) -> Report:
        return Report(
            problems=tuple(self.problems),
            checked=tuple(self.checked),
            unchecked=(*self.unchecked, *_NEVER_CHECKED),
            manifest=manifest,
            num_files=len(inventory.files) if inventory else 0,
            num_tensors=len(inventory.rows) if inventory else 0,
            num_bytes=inventory.num_bytes if inventory else 0,
        )
