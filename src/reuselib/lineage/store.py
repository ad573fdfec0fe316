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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError, StoreError
from reuselib.lineage import canonical
from reuselib.lineage.checkpoints import Checkpoints
from reuselib.lineage.claims import Claims
from reuselib.lineage.disk import (
    blames_disk,
    explain,
    make_folder,
    sync,
    sync_tree,
    write_file,
    writing,
)
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.output import deliver
from reuselib.lineage.packed import FILES, unpack
from reuselib.lineage.scratch import scratch, sweep
from reuselib.lineage.uses import Uses
from reuselib.places import cache_folder

MIN_PREFIX = 8
"""Digits by which a child may be named, if they are unique."""
_ID = "[0-9a-f]{64}"


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
        self._check_digest(derivation_id)
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
        self._check_digest(derivation_id)
        with self.growing(self.models / derivation_id, _is_child) as folder:
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
        self._check_digest(dir_hash)
        if (kept := self.roots / dir_hash).is_dir():
            if not self.quiet:
                self.uses.note(dir_hash, kept)
            return kept
        try:
            note = canonical.loads((self.roots / f"{dir_hash}.json").read_bytes())
        except (OSError, IntegrityError):
            return (
                None  # Never seen, or a damaged note, which is the same: it will be written again.
            )
        path = note.get("path") if isinstance(note, dict) else None
        if not isinstance(path, str):
            return None
        if Path(path).parent.name == self.models.name and re.fullmatch(_ID, Path(path).name):
            # a child, perhaps packed by now, or of a store that has moved
            return self._fetch(Path(path).name) or (Path(path) if Path(path).is_dir() else None)
        return Path(path) if Path(path).is_dir() else None

    def remember_root(self, dir_hash: str, path: Path) -> None:
        """Note where a base is."""
        self._check_digest(dir_hash)
        if self.quiet:
            return
        note, file = (
            canonical.dumps({"path": str(path.absolute())}),
            self.roots / f"{dir_hash}.json",
        )
        with suppress(OSError):
            if file.read_bytes() == note:
                return  # so a store that may only be read serves those whose children are all there
        with writing(self.roots):
            make_folder(self.roots)
        write_file(file, note)

    def forget_root(self, dir_hash: str, place: Path) -> None:
        """Forget that a child is a base; another one of the same bytes takes its place."""
        note = self.roots / f"{dir_hash}.json"
        with suppress(OSError, IntegrityError):
            if canonical.loads(note.read_bytes()) != {"path": str(place.absolute())}:
                return
            for name, record in self.records().items():
                if (
                    self.models / name != place
                    and Manifest.read(record).digests.dir_hash == dir_hash
                ):
                    return self.remember_root(dir_hash, self.models / name)
            note.unlink()

    @contextmanager
    def keep_root(self, dir_hash: str) -> Iterator[Path]:
        """As `fill`, for a base that is in no folder of its own, such as a module from Python."""
        self._check_digest(dir_hash)
        with self.growing(self.roots / dir_hash, Path.is_dir) as folder:
            yield folder

    def lesson(self, key: str) -> Path:
        """Where what a teacher said is kept, if it is: see `training.notebook`."""
        self._check_digest(key)
        return self.path / "lessons" / key

    @contextmanager
    def keep_lesson(self, key: str, is_whole: Callable[[Path], bool]) -> Iterator[Path]:
        """As `fill`, for what a teacher said; what is there already stays only if it `is_whole`."""
        with self.growing(self.lesson(key), is_whole) as folder:
            yield folder

    def activations(self, key: str) -> Path:
        """Where outputs of frozen blocks are kept, if they are: see `training.activations`."""
        self._check_digest(key)
        return self.path / "activations" / key

    @contextmanager
    def keep_activations(self, key: str, is_whole: Callable[[Path], bool]) -> Iterator[Path]:
        """As `keep_lesson`, for outputs of frozen blocks."""
        with self.growing(self.activations(key), is_whole) as folder:
            yield folder

    def state(self, derivation_id: str, step: int) -> Path:
        """Where the state of a training after a step is kept, if it is: see `training.state`."""
        self._check_digest(derivation_id)
        return self.path / "states" / derivation_id / str(step)

    @contextmanager
    def keep_state(self, derivation_id: str, step: int) -> Iterator[Path]:
        """As `fill`, for the state of a training; what another run left there is replaced."""
        with self.growing(self.state(derivation_id, step), lambda _: False) as folder:
            yield folder

    def mark_failed(self, derivation_id: str, failures: Sequence[str]) -> None:
        """Note beside the child, which stays as it is, what gates of a recipe it missed; none: forget it."""
        self._check_digest(derivation_id)
        note = self._verdicts / f"{derivation_id}.json"
        if not failures:
            note.unlink(missing_ok=True)
            return
        with writing(self._verdicts):
            make_folder(self._verdicts)
        write_file(note, canonical.dumps({"failed": list(failures)}))

    def failures(self, derivation_id: str) -> tuple[str, ...]:
        """What was last noted so; nothing if the child passed, or was never judged."""
        self._check_digest(derivation_id)
        try:
            note = canonical.loads((self._verdicts / f"{derivation_id}.json").read_bytes())
        except (OSError, IntegrityError):
            return ()
        failed = note.get("failed") if isinstance(note, dict) else None
        return tuple(str(each) for each in failed) if isinstance(failed, list) else ()

    @property
    def _verdicts(self) -> Path:
        return self.path / "verdicts"

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
    def tmp(self) -> Path:
        """Folder of what is not finished."""
        return self.path / "tmp"

    @property
    def claims(self) -> Claims:
        """Who makes what now."""
        return Claims(self.path / "claims")

    @property
    def uses(self) -> Uses:
        """When what was used."""
        return Uses(self.path / "uses")

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
            with self.growing(self.models / name, _is_child) as folder, writing(self.path):
                unpack(packed, self.tensors, folder)
        except StoreError:
            if packed.is_dir():
                raise

    def _check_digest(self, digest: str) -> None:
        # It becomes a file name, so it must not be able to leave the store.
        if not re.fullmatch(_ID, digest):
            raise StoreError(f"{digest!r} is not a digest", expected="64 lower-case hex digits")

    @contextmanager
    def growing(self, target: Path, is_whole: Callable[[Path], bool]) -> Iterator[Path]:
        """A folder in `tmp` that becomes `target` once the block is done; what is there stays if it `is_whole`."""
        with ExitStack() as stack:
            with writing(self.path):
                sweep(self.tmp)
                make_folder(target.parent)
                outer = stack.enter_context(scratch(self.tmp))
                folder = outer / "new"
                folder.mkdir()
            with _explaining_disk(self.path):
                yield folder
            with writing(self.path):
                sync_tree(folder)
                if target.exists() and not is_whole(target):
                    # Nothing appears here in parts, so this was damaged by hand.
                    target.rename(outer / "damaged")
                try:
                    folder.rename(target)
                except OSError:
                    # Another process was faster, and its result is the same.
                    if not is_whole(target):
                        raise
                sync(target.parent)


@contextmanager
def _explaining_disk(path: Path) -> Iterator[None]:
    """Put a full or failing disk into words; all other errors of a block are its own business."""
    try:
        yield
    except Exception as error:
        if not blames_disk(error):
            raise
        raise explain(error, path) from error


def _is_child(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()
