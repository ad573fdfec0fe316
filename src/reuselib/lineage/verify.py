"""Whether a model folder is what its manifest says: every byte, with nothing opened that could run.

Hashes and headers only; no weights are loaded and torch is not imported. The answer always includes
what was not checked, because a reader takes silence for a yes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from reuselib.errors import IntegrityError, ReuseError, SourceError
from reuselib.lineage.acceptance import beyond_verify, conflicts, stale
from reuselib.lineage.chain import ANCESTORS, Chain, read_ancestors, walk
from reuselib.lineage.compare import changed_files, changed_tensors
from reuselib.lineage.digest import SIGNATURE, all_files, file_digests, parse_checksums
from reuselib.lineage.hashing import Span, sha256_all
from reuselib.lineage.inventory import Inventory, take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.policy import Policy
from reuselib.lineage.record import CHECKSUMS, TENSORS
from reuselib.lineage.report import Problem, Report
from reuselib.lineage.rows import parse_rows
from reuselib.lineage.sniff import unsafe_format
from reuselib.lineage.tiers import Tier
from reuselib.lineage.trail import TRAIL, parse_trails
from reuselib.lineage.vouching import vouch

T = TypeVar("T")

_MAX_SIDECAR = 2**28
_NEVER_CHECKED = (
    "whether the parents' weights lead to these: they were not compared",
    "whether the recorded metrics can be measured again",
    "README.md: the model card is a view, not part of the record",
)


def verify(folder: Path, *, policy: Policy | None = None) -> Report:
    """Check a model folder against its manifest and, with a policy, who signed it and what else is demanded.

    Of the policy, what needs the parents' weights or a measurement is `audit`'s to enforce; the report says so.

    Raises:
        SourceError: there is no such folder, or a key of the policy cannot be read.
        MissingExtra: the policy trusts somebody, the folder is signed, and `reuselib[sign]` is not installed.
    """
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}", expected="a model folder", fix="check the path")
    return _Verification(folder, policy).run()


@dataclass
class _Verification:
    """One run over one folder: a step that fails is noted, and the steps that do not need it go on."""

    folder: Path
    policy: Policy | None
    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    signer: str = ""
    chain: Chain | None = None

    def run(self) -> Report:
        # Paths first: nothing below may follow a link out of the folder.
        names = self._attempt(lambda: all_files(self.folder))
        if names is None:
            return self._report()
        self.checked.append("paths: only plain files with portable names")
        self._warn_of_links(names)
        self._check_formats(names)
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
        files = self._digest_all(names, inventory)
        self._check_signature(names, files)
        self._check_policy(manifest)
        return self._report(manifest, inventory, files)

    def _warn_of_links(self, names: Iterable[str]) -> None:
        """A file with a second name may be changed where nobody looks; package managers make such files, too."""
        for name in names:
            if self._attempt(partial(_num_links, self.folder / name)) not in (None, 1):
                what = f"{name} has another name somewhere (a hard link), through which it may be changed"
                self.warnings.append(Problem("UNSAFE_PATH", what, name))

    def _check_formats(self, names: Iterable[str]) -> None:
        for name in names:
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
                if name == TRAIL:
                    self._attempt(partial(parse_trails, data, path=name))
            elif data is not None:
                self._note(IntegrityError("DIGEST_MISMATCH", f"{name} was changed", path=name))
        for name in sorted(present - set(expected) - {MANIFEST}):
            if not name.startswith(f"{ANCESTORS}/"):
                self._refuse_unrecorded(
                    IntegrityError("UNSIGNED_FILE", f"{name} is not recorded", path=name)
                )
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
        for error in errors:
            self._refuse_unrecorded(error)
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
        self.chain = chain
        for parent in chain.missing:
            what = f"the history of {parent.name!r}, whose manifest is not at hand"
            if self.policy and self.policy.require:
                self._note(IntegrityError("MISSING_PARENT", what, path=ANCESTORS))
            else:
                self.unchecked.append(f"MISSING_PARENT: {what}")
        reached = {f"{ANCESTORS}/{digest}.json" for digest in chain.manifests}
        for name in names:
            if name.startswith(f"{ANCESTORS}/") and name not in reached:
                what = f"{name} is no manifest of an ancestor"
                self._note(IntegrityError("PARENT_STATEMENT_MISMATCH", what, path=name))
        self.checked.append(f"history: {len(chain.manifests)} manifests of ancestors by digest")

    def _digest_all(self, names: Iterable[str], inventory: Inventory | None) -> Mapping[str, str]:
        """SHA-256 of everything that a signature is about; empty if something cannot be read."""
        known = inventory.files if inventory else {}
        others = [name for name in names if name not in known and name != SIGNATURE]
        digests = self._attempt(lambda: sha256_all([Span(self.folder / name) for name in others]))
        if inventory is None or digests is None:
            return {}
        return {**known, **dict(zip(others, digests, strict=True))}

    def _check_signature(self, names: Collection[str], files: Mapping[str, str]) -> None:
        found = vouch(self.folder, self.policy, names, files)
        self.warnings.extend(Problem.of(error) for error in found.warnings)
        self.unchecked.extend(found.unchecked)
        # What the record says already is not said twice.
        named = {(each.code, each.path) for each in (*self.problems, *self.warnings)}
        for error in found.problems:
            if (error.code, error.path) not in named:
                self._refuse_unrecorded(error)
        # Somebody vouches for what was signed, and for no more than that.
        if found.signer and not self.problems:
            self.signer = found.signer
            self.checked.append(f"signature: {found.num_files} files, signed by {found.signer}")

    def _check_policy(self, manifest: Manifest) -> None:
        """What else is demanded, as far as the folder alone can tell."""
        chain = self.chain or Chain({})
        self._note(*conflicts(manifest, chain))
        if self.policy is None:
            return
        self._note(*stale(manifest, chain, self.policy))
        self.unchecked.extend(beyond_verify(self.policy))
        self.checked.append("policy: what the folder alone can tell")

    def _refuse_unrecorded(self, error: IntegrityError) -> None:
        """Note a problem; one about a file that nobody recorded, as the policy has it."""
        lenient = self.policy is not None and self.policy.unrecorded == "warn"
        if lenient and error.code == "UNSIGNED_FILE":
            self.warnings.append(Problem.of(error))
        else:
            self._note(error)

    def _read(self, name: str) -> bytes:
        try:
            with (self.folder / name).open("rb") as file:
                data = file.read(_MAX_SIDECAR + 1)
        except OSError as error:
            raise SourceError(f"cannot read {self.folder / name}: {error.strerror}") from error
        if len(data) > _MAX_SIDECAR:
            raise IntegrityError("LIMIT", f"{name} is larger than {_MAX_SIDECAR} bytes", path=name)
        return data

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """The result of a step, or None if it cannot be done; why is noted."""
        try:
            return step()
        except ReuseError as error:
            self._note(error)
            return None

    def _note(self, *errors: ReuseError) -> None:
        self.problems.extend(Problem.of(error) for error in errors)

    def _tier(self) -> Tier:
        if self.problems or self.chain is None:
            return "broken"
        if self.chain.missing:
            return "missing"
        return "signed" if self.signer else "recorded"

    def _report(
        self,
        manifest: Manifest | None = None,
        inventory: Inventory | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Report:
        # What stopped the verification came before anybody looked.
        looked = files is not None
        unsaid = () if looked else ("who made it: no signature was looked at",)
        return Report(
            problems=tuple(self.problems),
            checked=tuple(self.checked),
            unchecked=(*self.unchecked, *unsaid, *_NEVER_CHECKED),
            warnings=tuple(self.warnings),
            signer=self.signer,
            tier=self._tier(),
            manifest=manifest,
            files=files or {},
            num_files=len(inventory.files) if inventory else 0,
            num_tensors=len(inventory.rows) if inventory else 0,
            num_bytes=inventory.num_bytes if inventory else 0,
        )


def _num_links(path: Path) -> int:
    try:
        return path.stat().st_nlink
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
