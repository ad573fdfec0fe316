"""Checkpoints of trainings that are not finished: each is whole, or counts for nothing.

`checkpoints/<derivation id>/<training>-<step>/` of the store holds files of the training, `checkpoint.json`, which says
what they belong to, and `SHA256SUMS` over all of these, in the form that `sha256sum -c` reads. That is written last,
when the others are on the disk. So a checkpoint of which any byte is missing or changed is known for what it is. They
are told apart and ordered by their names, never by a clock.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.digest import all_files, checksums, file_sha256, parse_checksums
from reuselib.lineage.disk import make_folder, sync, sync_tree, write_file, writing
from reuselib.lineage.hashing import Span, sha256_all
from reuselib.lineage.reading import Fields
from reuselib.lineage.scratch import scratch, sweep

if TYPE_CHECKING:
    from reuselib.adapter import Json

SUMS, TITLE = "SHA256SUMS", "checkpoint.json"
_VERSION = 1
_KNOWN = ("checkpoint", "training", "step", "numSteps", "ended", "inputs", "environment", "notes")
_NAME = re.compile("([0-9]{1,6})-([0-9]{1,12}|end)")


@dataclass(frozen=True, kw_only=True)
class Title:
    """What a checkpoint says of itself."""

    training: int
    """Which training of its step of the recipe, from 0."""
    step: int
    """Optimizer steps that are done."""
    num_steps: int
    """That were planned."""
    ended: bool = False
    """It is what came of the training: there is nothing left to do."""
    inputs: Mapping[str, Json]
    """What the child is made of, see `derivation.plan.Plan.inputs`."""
    environment: Mapping[str, Json]
    """What else decides the bits."""
    notes: Mapping[str, Json]
    """What the training knows besides its tensors."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.training}-{'end' if self.ended else self.step}"

    def to_json(self) -> dict[str, Json]:
        """As `checkpoint.json` has it."""
        return {
            "checkpoint": _VERSION,
            "training": self.training,
            "step": self.step,
            "numSteps": self.num_steps,
            "ended": self.ended,
            "inputs": dict(self.inputs),
            "environment": dict(self.environment),
            "notes": dict(self.notes),
        }


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one child that is being made."""

    store: Path
    """Folder of the store."""
    derivation_id: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.store / "checkpoints" / self.derivation_id

    def names(self, training: int | None = None) -> list[str]:
        """Names of those that are there, valid or not: the furthest first, of one training or of all."""
        found: list[tuple[int, float, str]] = []
        with suppress(OSError):
            for path in self.folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match and training in (None, int(match[1])):
                    step = float("inf") if match[2] == "end" else int(match[2])
                    found.append((int(match[1]), step, path.name))
        return [name for *_, name in sorted(found, reverse=True)]

    @contextmanager
    def add(self, title: Title) -> Iterator[Path]:
        """An empty folder that becomes the checkpoint at the end of the block, or vanishes if the block raises.

        Raises:
            StoreError: the store cannot be written, or the disk is full.
            IntegrityError: what was written does not read back; it is removed.
        """
        target, tmp = self.folder / title.name, self.store / "tmp"
        with ExitStack() as stack:
            with writing(self.store):
                sweep(tmp)
                outer = stack.enter_context(scratch(tmp))
                folder = outer / "new"
                folder.mkdir()
            yield folder
            write_file(folder / TITLE, canonical.dumps(title.to_json()))
            with writing(self.store):
                sync_tree(folder)
                write_file(folder / SUMS, _sums(folder))
                make_folder(self.folder)
                if target.exists():
                    target.rename(outer / "old")
                folder.rename(target)
                sync(self.folder)
            try:
                read(target)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise

    def keep_only(self, names: Collection[str]) -> None:
        """Remove the others."""
        for name in set(self.names()) - set(names):
            self._remove(self.folder / name)

    def clear(self) -> None:
        """Remove all of them, once the child is finished."""
        if self.folder.exists():
            self._remove(self.folder)

    def _remove(self, folder: Path) -> None:
        """By one rename, so that no part of it is ever seen. What cannot be removed only takes room."""
        with suppress(OSError), scratch(self.store / "tmp") as outer:
            folder.rename(outer / folder.name)


def read(folder: Path) -> tuple[Title, Mapping[str, str]]:
    """What a checkpoint says of itself, and the SHA-256 of each of its files, all of which are read.

    Raises:
        SourceError: there is none.
        IntegrityError: `DIGEST_MISMATCH` or another code, it is not as it was written.
    """
    try:
        sums = (folder / SUMS).read_bytes()
    except OSError as error:
        raise SourceError(
            f"no checkpoint at {folder}: {SUMS} cannot be read ({error.strerror})",
            expected="a folder such as <store>/checkpoints/<derivation id>/0-120",
            fix="leave out --resume, and the newest that is valid is taken",
        ) from error
    files = parse_checksums(sums, path=SUMS)
    if _sums(folder) != sums:
        raise IntegrityError("DIGEST_MISMATCH", f"{folder.name} was changed or is cut off")
    return _title(folder, files), files


def glance(folder: Path) -> Title | None:
    """What a checkpoint says of itself, without reading its tensors: whether these are intact is another question."""
    try:
        return _title(folder, parse_checksums((folder / SUMS).read_bytes(), path=SUMS))
    except (OSError, IntegrityError, SourceError):
        return None


def _title(folder: Path, files: Mapping[str, str]) -> Title:
    if file_sha256(folder / TITLE) != files.get(TITLE):
        raise IntegrityError("DIGEST_MISMATCH", f"{TITLE} was changed", path=TITLE)
    value = canonical.loads((folder / TITLE).read_bytes(), path=TITLE)
    fields = Fields(value, "", _KNOWN, TITLE)
    version = fields.get("checkpoint", int)
    if version != _VERSION:
        raise IntegrityError("BAD_STATE", f"a checkpoint of version {version}", path=TITLE)
    return Title(
        training=fields.get("training", int),
        step=fields.get("step", int),
        num_steps=fields.get("numSteps", int),
        ended=fields.get("ended", bool),
        inputs=fields.get("inputs", dict),
        environment=fields.get("environment", dict),
        notes=fields.get("notes", dict),
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In words, what differs between two descriptions: `lora.fit.learning_rate: 5e-05 there, 0.0001 here`."""
    one, other = dict(_flat(there)), dict(_flat(here))
    return [
        f"{name}: {_shown(one, name)} there, {_shown(other, name)} here"
        for name in sorted(one.keys() | other.keys())
        if name not in one or name not in other or one[name] != other[name]
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "nothing"


def _sums(folder: Path) -> bytes:
    names = [name for name in all_files(folder) if name != SUMS]
    digests = sha256_all([Span(folder / name) for name in names])
    return checksums(dict(zip(names, digests, strict=True)))
