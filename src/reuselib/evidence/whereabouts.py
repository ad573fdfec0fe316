"""Where the models of a history are: in folders that somebody names, or in a store; by digest, never by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import MANIFEST
from reuselib.lineage.store import Store

if TYPE_CHECKING:
    from reuselib.lineage.descriptors import Parent
    from reuselib.lineage.digest import Digests
    from reuselib.lineage.manifest import Manifest


@dataclass(frozen=True)
class Whereabouts:
    """Finds the folder of a model that a manifest names. What is found has the recorded digests, or is refused.

    A folder is read once, when it is first needed, however many steps it is a part of.
    """

    store: Store
    folders: Sequence[Path] = ()
    """Looked at before the store, in whatever order: a model is recognised by its bytes."""
    manifests: Mapping[str, Manifest] = field(default_factory=dict[str, "Manifest"])
    """What is known about models, by the sha256 of the manifest."""
    _read: dict[Path, Digests] = field(default_factory=dict[Path, "Digests"], repr=False)

    @classmethod
    def of(
        cls,
        parents: Sequence[Path] = (),
        store: Path | str | Store | None = None,
        manifests: Mapping[str, Manifest] | None = None,
    ) -> Whereabouts:
        """From what callers give; without a store, the default one."""
        place = store if isinstance(store, Store) else Store.default(store)
        return cls(place, tuple(parents), manifests or {})

    def folder(self, parent: Parent) -> Path:
        """Where a model is, with every byte compared with its record.

        Raises:
            SourceError: it is not at hand.
            IntegrityError: `PARENT_MISMATCH`, the store knows a place, but another model is there by now.
        """
        for folder, digests in self.named.items():
            if digests == parent.digests:
                return folder
        place = self.store.locate(parent.digests.dir_hash)
        if place is None:
            raise SourceError(
                f"'{self.called(parent)}' (dirHash {parent.digests.dir_hash}) is not at hand",
                expected="every parent in the store, opened before with it, or named",
                fix="get the parent and name its folder with --parents",
            )
        if self.digests(place) != parent.digests:
            raise IntegrityError(
                "PARENT_MISMATCH",
                f"{place} is no longer '{self.called(parent)}' (dirHash {parent.digests.dir_hash})",
                fix="get the parent again, or name another folder with --parents",
            )
        return place

    def place(self, dir_hash: str) -> Path | None:
        """Where a model with this `dirHash` may be; whoever opens it compares bytes and record.

        Raises:
            SourceError: one of the folders that were named is not there.
            IntegrityError: one cannot be read safely.
        """
        for folder, digests in self.named.items():
            if digests.dir_hash == dir_hash:
                return folder
        return self.store.locate(dir_hash)

    def known(self, parent: Parent) -> Manifest | None:
        """The manifest that a child names, if it is at hand."""
        return self.manifests.get(parent.manifest_sha256)

    def called(self, parent: Parent) -> str:
        """A name for people: its own, else where it came from, else what it is to the child."""
        known = self.known(parent)
        return known.name if known else parent.uri or parent.name

    def manifest(self, parent: Parent) -> Manifest | None:
        """What is known about a model; None if nothing is, and its folder says nothing either.

        Raises:
            SourceError: the folder has a record, but not the one that the child names.
        """
        known = self.known(parent)
        if known is None and (self.folder(parent) / MANIFEST).exists():
            raise SourceError(
                f"the manifest of '{self.called(parent)}' ({parent.manifest_sha256}) is not at hand",
                expected="the manifests of all ancestors in lineage/ancestors",
                fix="get the model again, or name the folder of that parent with --parents",
            )
        return known

    @cached_property
    def named(self) -> Mapping[Path, Digests]:
        """The identity of each of `folders`.

        Raises:
            SourceError: one is not there.
            IntegrityError: one cannot be read safely.
        """
        return {folder: self.digests(folder) for folder in self.folders}

    def digests(self, folder: Path) -> Digests:
        """The identity of a folder, as it is; raises as `named`."""
        if folder not in self._read:
            # links are for snapshots of a hub cache, which lead into blobs beside them only
            self._read[folder] = take_inventory(folder, follow_links=True).digests
        return self._read[folder]
