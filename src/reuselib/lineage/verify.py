"""Whether a model folder is what its manifest says: every byte, with nothing opened that could run.

Hashes and headers only; no weights are loaded and torch is not imported. The answer always includes
what was not checked, because a reader takes silence for a yes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.acceptance import beyond_verify, conflicts, stale
from reuselib.lineage.chain import ANCESTORS, Chain, read_ancestors, walk
from reuselib.lineage.digest import SIGNATURE, all_files
from reuselib.lineage.hashing import Span, sha256_all
from reuselib.lineage.inventory import Inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.notes import Notes
from reuselib.lineage.payload import compare_payload
from reuselib.lineage.policy import Policy, policy_for
from reuselib.lineage.report import Problem, Report
from reuselib.lineage.sniff import unsafe_format
from reuselib.lineage.tiers import Tier
from reuselib.lineage.trail import TRAIL, parse_trails
from reuselib.lineage.vouching import vouch

_MAX_SIDECAR = 2**25
"""Bytes; an inventory of 100,000 tensors has some 20 MB."""
_CARD = "README.md: the model card is a view, not part of the record"
_NO_RECORD = (
    "ask for a copy with its record; a model that reuselib did not make has none, and "
    "`reuselib trace` and `reuselib kin` tell what can be told of it"
)
_NEVER_CHECKED = (
    "whether the parents' weights lead to these: they were not compared",
    "whether the recorded metrics can be measured again",
)


def verify(folder: str | Path, *, policy: Policy | str | Path | None = None) -> Report:
    """Check a model folder against its manifest and, with a policy, who signed it and what else is demanded.

    Of the policy, what needs the parents' weights or a measurement is `audit`'s to enforce; the report says so.

    Args:
        folder: the model.
        policy: what is demanded besides, or the file that says so.

    Raises:
        SourceError: there is no such folder, or a key of the policy cannot be read.
        RecipeError: the policy is malformed, or lies in the folder.
        MissingExtra: the policy trusts somebody, and `reuselib[sign]` is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = f"{folder} is no folder" if folder.exists() else f"no folder {folder}"
        raise SourceError(what, expected="a model folder", fix="check the path")
    demanded = policy_for(folder, policy)
    return _Verification(folder, demanded, Notes(demanded)).run()


@dataclass
class _Verification:
    """One run over one folder: a step that fails is noted, and the steps that do not need it go on."""

    folder: Path
    policy: Policy | None
    notes: Notes
    signer: str = ""
    chain: Chain | None = None

    def run(self) -> Report:
        # Paths first: nothing below may follow a link out of the folder.
        names = self.notes.attempt(lambda: all_files(self.folder))
        if names is None:
            return self._report()
        self.notes.checked.append("paths: only plain files with portable names")
        self._warn_of_links(names)
        self._check_formats(names)
        if MANIFEST not in names:
            self.notes.note(
                IntegrityError(
                    "MISSING_LINEAGE", f"there is no {MANIFEST}", path=MANIFEST, fix=_NO_RECORD
                )
            )
            return self._report()
        manifest = self.notes.attempt(lambda: Manifest.read(self.folder))
        if manifest is None:
            return self._report()
        self.notes.checked.append("manifest: form, fields and digests")
        sidecars = self._check_byproducts(manifest, names)
        inventory = compare_payload(self.folder, manifest, sidecars, self.notes)
        self._check_ancestors(manifest, names)
        files = self._digest_all(names, inventory)
        self._check_policy(manifest)
        self._check_signature(names, files)
        return self._report(manifest, inventory, files)

    def _warn_of_links(self, names: Iterable[str]) -> None:
        """A file with a second name may be changed where nobody looks; package managers make such files, too."""
        for name in names:
            if self.notes.attempt(partial(_num_links, self.folder / name)) not in (None, 1):
                what = f"{name} has another name somewhere (a hard link), through which it may be changed"
                self.notes.warnings.append(Problem("UNSAFE_PATH", what, name))

    def _check_formats(self, names: Iterable[str]) -> None:
        for name in names:
            if why := self.notes.attempt(partial(unsafe_format, self.folder / name)):
                self.notes.note(IntegrityError("UNSAFE_FORMAT", f"{name}: {why}", path=name))
        self.notes.checked.append("formats: no pickles and no code, judged by content")

    def _check_byproducts(self, manifest: Manifest, names: Iterable[str]) -> dict[str, bytes]:
        """Compare the other files of the record with their digests; return the sound ones."""
        sound: dict[str, bytes] = {}
        present = {name for name in names if name.startswith("lineage/")}
        expected = {item.name: item.digest.get("sha256") for item in manifest.details.byproducts}
        for name, digest in expected.items():
            if name not in present:
                self.notes.note(
                    IntegrityError("MISSING_FILE", f"{name} is recorded but not there", path=name)
                )
                continue
            data = self.notes.attempt(partial(self._read, name))
            if data is not None and hashlib.sha256(data).hexdigest() == digest:
                sound[name] = data
                if name == TRAIL:
                    self.notes.attempt(partial(parse_trails, data, path=name))
            elif data is not None:
                self.notes.note(IntegrityError("DIGEST_MISMATCH", f"{name} was changed", path=name))
        for name in sorted(present - set(expected) - {MANIFEST}):
            if not name.startswith(f"{ANCESTORS}/"):
                self.notes.refuse_unrecorded(
                    IntegrityError("UNSIGNED_FILE", f"{name} is not recorded", path=name)
                )
        self.notes.checked.append(f"record: {len(expected)} files of lineage/ by digest")
        return sound

    def _check_ancestors(self, manifest: Manifest, names: Iterable[str]) -> None:
        ancestors = self.notes.attempt(lambda: read_ancestors(self.folder))
        chain = self.notes.attempt(lambda: walk(manifest, ancestors or {}))
        if chain is None:
            return
        self.chain = chain
        for parent in chain.missing:
            what = f"the history of {parent.name!r}, whose manifest is not at hand"
            if self.policy and self.policy.require:
                self.notes.note(IntegrityError("MISSING_PARENT", what, path=ANCESTORS))
            else:
                self.notes.unchecked.append(f"MISSING_PARENT: {what}")
        reached = {f"{ANCESTORS}/{digest}.json" for digest in chain.manifests}
        for name in names:
            if name.startswith(f"{ANCESTORS}/") and name not in reached:
                what = f"{name} is no manifest of an ancestor"
                self.notes.note(IntegrityError("PARENT_STATEMENT_MISMATCH", what, path=name))
        self.notes.checked.append(
            f"history: {len(chain.manifests)} manifests of ancestors by digest"
        )

    def _digest_all(self, names: Iterable[str], inventory: Inventory | None) -> Mapping[str, str]:
        """SHA-256 of everything that a signature is about; empty if something cannot be read."""
        known = inventory.files if inventory else {}
        others = [name for name in names if name not in known and name != SIGNATURE]
        digests = self.notes.attempt(
            lambda: sha256_all([Span(self.folder / name) for name in others])
        )
        if inventory is None or digests is None:
            return {}
        return {**known, **dict(zip(others, digests, strict=True))}

    def _check_signature(self, names: Collection[str], files: Mapping[str, str]) -> None:
        found = vouch(self.folder, self.policy, names, files)
        self.notes.unchecked.extend(found.unchecked)
        # What the record says already is not said twice.
        named = {(each.code, each.path) for each in (*self.notes.problems, *self.notes.warnings)}
        for error in found.problems:
            if (error.code, error.path) not in named:
                self.notes.refuse_unrecorded(error)
        # Somebody vouches for what was signed, and for no more than that; not for what the policy does not accept.
        if found.signer and not self.notes.problems:
            self.signer = found.signer
            self.notes.checked.append(
                f"signature: {found.num_files} files, signed by {found.signer}"
            )

    def _check_policy(self, manifest: Manifest) -> None:
        """What else is demanded, as far as the folder alone can tell."""
        chain = self.chain or Chain({})
        self.notes.note(*conflicts(manifest, chain))
        if self.policy is None:
            return
        self.notes.note(*stale(manifest, chain, self.policy))
        self.notes.unchecked.extend(beyond_verify(self.policy))
        self.notes.checked.append("policy: what the folder alone can tell")

    def _read(self, name: str) -> bytes:
        try:
            with (self.folder / name).open("rb") as file:
                data = file.read(_MAX_SIDECAR + 1)
        except OSError as error:
            raise SourceError(f"cannot read {self.folder / name}: {error.strerror}") from error
        if len(data) > _MAX_SIDECAR:
            raise IntegrityError("LIMIT", f"{name} is larger than {_MAX_SIDECAR} bytes", path=name)
        return data

    def _tier(self) -> Tier:
        if self.notes.problems or self.chain is None:
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
        unsaid = [] if looked else ["who made it: no signature was looked at"]
        if not self.signer:  # a signature is over the card too
            unsaid.append(_CARD)
        return Report(
            problems=tuple(self.notes.problems),
            checked=tuple(self.notes.checked),
            unchecked=(*self.notes.unchecked, *_NEVER_CHECKED, *unsaid),
            warnings=tuple(self.notes.warnings),
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
