"""The store: a local folder of children, so that what exists is not computed twice.

`models/<derivation id>/` are children, `packed/` and `tensors/` those that nobody uses (see
`lineage.packed`), `roots/` remembers bases by `dirHash`, `lessons/` keeps what teachers said,
`states/<derivation id>/<step>/` what trainings were like on the way, `verdicts/` says which children
missed a gate, `claims/` who makes which child now, `uses/` when each thing was last used, `tmp/` is
where all of these grow. A child appears by one rename, complete and on the disk, or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError, StoreError
from reuselib.lineage.bases import Bases
from reuselib.lineage.checkpoints import Checkpoints
from reuselib.lineage.claims import Claims
from reuselib.lineage.disk import write_file, writing
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.output import deliver
from reuselib.lineage.packed import FILES, unpack
from reuselib.lineage.rooms import DIGEST, TMP, Room, require_digest
from reuselib.lineage.scratch import scratch, sweep
from reuselib.lineage.uses import Uses
from reuselib.lineage.verdicts import Verdicts
from reuselib.places import cache_folder

MIN_PREFIX = 8
"""Digits by which a child may be named, if they are unique."""


@dataclass(frozen=True)
class Store:
    """A store at a path, which need not exist yet."""

    path: Path
    quiet: bool = False
    """Leave no notes: not where bases are, nor when children were used."""

    @classmethod
    def default(cls, path: Path | str | Store | None = None) -> Store:
        """The store at `path`, else at `REUSELIB_STORE`, else in the user's cache."""
        if isinstance(path, Store):
            return path
        chosen = path or os.environ.get("REUSELIB_STORE")
        return cls(Path(chosen).expanduser().absolute() if chosen else cache_folder())

    def check(self) -> None:
        """Find out before a long computation whether its result could be kept.

        Raises:
            StoreError: the store cannot be written.
        """
        with writing(self.path), scratch(self.tmp) as folder:
            write_file(folder / "probe", b"probe")

    def tidy(self, finished: Sequence[str]) -> None:
        """Clear away what killed processes left, and checkpoints of finished children; what cannot be, stays."""
        sweep(self.tmp)
        self.claims.held()
        for derivation_id in finished:
            Checkpoints(self.path, derivation_id).clear()

    def find(self, derivation_id: str) -> Path | None:
        """The folder of a child, named by its id or by at least 8 first digits of it; unpacked if it is packed.

        Raises:
            StoreError: the digits fit several children, or are no such digits; or a packed child is damaged, or
            there is no room for it.
        """
        name = self._name(derivation_id)
        return self._fetch(name) if name else None

    def whole_name(self, derivation_id: str) -> str:
        """The whole id of a child that is there; otherwise as `find`, and raises if there is none."""
        name = self._name(derivation_id)
        if name is None:
            raise self._missing(derivation_id)
        return name

    def record(self, derivation_id: str) -> Path | None:
        """A folder with everything of a child but, if it is packed, its weights; otherwise as `find`."""
        name = self._name(derivation_id)
        return self.records().get(name) if name else None

    def records(self) -> dict[str, Path]:
        """All children by id, each with the folder that `record` gives."""
        packed = {path.parent.name: path for path in self.packed.glob(f"*/{FILES}")}
        plain = {path.name: path for path in self.models.glob("*")}
        found = packed | plain
        return {name: found[name] for name in sorted(found) if _is_child(found[name])}

    @contextmanager
    def claim(
        self,
        derivation_id: str,
        *,
        needs: Sequence[str] = (),
        waiting: Callable[[str], None] | None = None,
    ) -> Iterator[bool]:
        """Be the only one who makes a child, during the block. If another run makes it, this waits for that run.

        So look the child up once more inside. A run that dies gives up its claim.

        Args:
            derivation_id: of the child.
            needs: derivation ids and `dirHash`es of what must stay in the store meanwhile.
            waiting: called once before waiting, with the other run in words.

        Yields:
            Whether another run had the claim first.

        Raises:
            StoreError: the store cannot be written.
        """
        require_digest(derivation_id)
        with self.claims.hold(derivation_id, needs, waiting) as waited:
            yield waited

    @contextmanager
    def fill(self, derivation_id: str) -> Iterator[Path]:
        """An empty folder that becomes the child at the end of the block, or vanishes if the block raises.

        If another process was faster its child is kept, since both are the same; so look it up with
        `find` afterwards.

        Raises:
            StoreError: the store cannot be written, or the disk is full.
        """
        with Room(self.path, self.models.name).fill(derivation_id, is_whole=_is_child) as folder:
            yield folder

    def export(self, derivation_id: str, output: Path, *, overwrite: bool = False) -> Path:
        """Copy a child to a folder of the user's, which afterwards is whole or as before; return the folder.

        Raises:
            StoreError: there is no such child, `check_output` refuses the folder, or it cannot be
            written.
        """
        source = self.find(derivation_id)
        if source is None:
            raise self._missing(derivation_id)
        return deliver(source, output, overwrite=overwrite)

    def locate(self, dir_hash: str) -> Path | None:
        """Where a base was last seen. That may have changed since: check its digest."""
        if (kept := self._bases.kept(dir_hash)) is not None:
            if not self.quiet:
                self.uses.note(dir_hash, kept)
            return kept
        noted = self._bases.noted(dir_hash)
        if noted is None:
            return None
        child = None
        if noted.parent.name == self.models.name and re.fullmatch(DIGEST, noted.name):
            child = self._fetch(noted.name)  # perhaps packed by now, or of a store that has moved
        return child or (noted if noted.is_dir() else None)

    def remember_root(self, dir_hash: str, path: Path) -> None:
        """Note where a base is."""
        require_digest(dir_hash)
        if not self.quiet:
            self._bases.note(dir_hash, path)

    def forget_root(self, dir_hash: str, place: Path) -> None:
        """Forget that a child is a base; another one of the same bytes takes its place."""
        if self._bases.noted(dir_hash) != place.absolute():
            return
        with suppress(OSError, IntegrityError):
            for name, record in self.records().items():
                if (
                    self.models / name != place
                    and Manifest.read(record).digests.dir_hash == dir_hash
                ):
                    return self.remember_root(dir_hash, self.models / name)
            self._bases.forget(dir_hash)

    @contextmanager
    def keep_root(self, dir_hash: str) -> Iterator[Path]:
        """As `fill`, for a base that is in no folder of its own, such as a module from Python."""
        with Room(self.path, self.roots.name).fill(dir_hash, is_whole=Path.is_dir) as folder:
            yield folder

    @property
    def models(self) -> Path:
        """Folder of the children that can be loaded as they are."""
        return self.path / "models"

    @property
    def packed(self) -> Path:
        """Folder of those that are packed."""
        return self.path / "packed"

    @property
    def tensors(self) -> Path:
        """Folder of what these share."""
        return self.path / "tensors"

    @property
    def roots(self) -> Path:
        """Folder of bases, and of notes where others are."""
        return self.path / "roots"

    @property
    def lessons(self) -> Room:
        """What teachers said, see `training.notebook`."""
        return Room(self.path, "lessons")

    @property
    def activations(self) -> Room:
        """Outputs of frozen blocks, see `training.activations`."""
        return Room(self.path, "activations")

    @property
    def states(self) -> Room:
        """What trainings were like after a step, by derivation id and number of the step, see `training.state`."""
        return Room(self.path, "states")

    @property
    def tmp(self) -> Path:
        """Folder of what is not finished."""
        return self.path / TMP

    @property
    def claims(self) -> Claims:
        """Who makes what now."""
        return Claims(self.path / "claims")

    @property
    def uses(self) -> Uses:
        """When what was used."""
        return Uses(self.path / "uses")

    @property
    def verdicts(self) -> Verdicts:
        """Which children missed a gate."""
        return Verdicts(self.path / "verdicts")

    @property
    def _bases(self) -> Bases:
        return Bases(self.roots)

    def _name(self, derivation_id: str) -> str | None:
        """The whole id of a child."""
        if not re.fullmatch(f"[0-9a-f]{{{MIN_PREFIX},64}}", derivation_id):
            raise StoreError(
                f"{derivation_id!r} names no child in the store",
                expected=f"{MIN_PREFIX} to 64 hex digits of a derivation id",
                fix=f"see the names in {self.models}",
            )
        plain = [path for path in self.models.glob(f"{derivation_id}*") if _is_child(path)]
        found = {path.name for path in (*plain, *self.packed.glob(f"{derivation_id}*"))}
        if len(found) > 1:
            raise StoreError(
                f"{derivation_id} fits {len(found)} children: {', '.join(sorted(found))}",
                fix="give more digits",
            )
        return next(iter(found), None)

    def _missing(self, derivation_id: str) -> StoreError:
        return StoreError(
            f"the store at {self.path} has no child {derivation_id}",
            fix="run its recipe again, or name another store with --store",
        )

    def _fetch(self, name: str) -> Path | None:
        """A child by its whole id, to be used: unpacked if need be, and noted."""
        folder, packed = self.models / name, self.packed / name
        while _is_child(folder) or packed.is_dir():
            if not _is_child(folder):
                self._unpack(name)
            elif self.quiet or self.uses.note(name, folder):
                return folder
        return None

    def _unpack(self, name: str) -> None:
        """Make a packed child one that can be loaded, unless it is taken away meanwhile."""
        packed = self.packed / name
        try:
            with self.fill(name) as folder, writing(self.path):
                unpack(packed, self.tensors, folder)
        except StoreError:
            if packed.is_dir():
                raise


def _is_child(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()
