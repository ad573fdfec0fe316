"""What a teacher said, kept on disk: in `lessons/` of the store, under a key of everything that it depends on.

A lesson is a folder of safetensors files and `lesson.json`, which says what the answers are to and has the SHA-256 of
each file. It may be thrown away at any time; then the teacher is asked again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Json, as_json
from reuselib.errors import IntegrityError, SourceError, StoreError
from reuselib.lineage import canonical
from reuselib.lineage.digest import file_digests
from reuselib.lineage.disk import write_file
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors, save_tensors
from reuselib.training.device import target_device
from reuselib.training.teaching import Notes, Part, joined, lost_mass

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.task import Examples, Processor, Task
    from reuselib.training.lessons import Lesson

FORM = 1
"""Of the folder; part of every key, so that another form is another lesson."""
TITLE = "lesson.json"
FILE_BYTES = 2**26
"""Size of a file of answers, and so about what is held in memory before it is written."""


@dataclass(frozen=True)
class Subject:
    """What a teacher's answers depend on."""

    teacher: tuple[str, ...]
    """Digests of the model and of those that it needs."""
    rows: str
    """Digest of the rows."""
    encoding: str
    """Digest of how these reach the network, see `encoding_digest`."""
    lesson: Lesson
    machine: str
    """What else decides about the last bits: device, and version of torch."""

    def describe(self) -> dict[str, Json]:
        """As `lesson.json` has it."""
        return {
            "form": FORM,
            "teacher": list(self.teacher),
            "rows": self.rows,
            "encoding": self.encoding,
            "lesson": as_json(self.lesson),
            "machine": self.machine,
        }

    @property
    def key(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(canonical.dumps(self.describe())).hexdigest()


@dataclass(frozen=True)
class Kept:
    """A lesson on disk."""

    notes: Notes
    lost_mass: float
    """Mean probability of what was left out, over the targets."""
    num_bytes: int


def find(store: Store, subject: Subject) -> Kept | None:
    """The lesson, if it is there and every byte is as it was written; a damaged or foreign one counts as absent."""
    folder = store.lessons.place(subject.key)
    title = _title(folder, subject)
    if title is None:
        return None
    tensors = Tensors(folder)
    parts: dict[str, dict[str, Tensor]] = {}
    for name in tensors:
        number, _, key = name.partition("/")
        parts.setdefault(number, {})[key] = tensors[name]
    size = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
    return Kept(Notes([parts[number] for number in sorted(parts)]), title["lost_mass"], size)


def in_memory(parts: Iterable[Part]) -> Kept:
    """A lesson that is not kept longer than the process needs it."""
    held = list(parts)
    lost, number = lost_mass(held)
    return Kept(Notes(held), lost / number if number else 0.0, 0)


def write(store: Store, subject: Subject, parts: Iterable[Part], num_rows: int) -> Kept:
    """Write a lesson, whole or not at all, and read it back.

    Args:
        store: where.
        subject: what the answers depend on.
        parts: the answers; each is let go of once it is written.
        num_rows: that will come, to see early whether there is room.

    Raises:
        StoreError: the store cannot be written, or has no room.
    """
    lost, number = 0.0, 0
    with store.lessons.fill(
        subject.key, is_whole=lambda at: _title(at, subject) is not None
    ) as new:
        for count, part in enumerate(joined(parts, FILE_BYTES)):
            path = new / f"{count:05d}.safetensors"
            save_tensors({f"{path.stem}/{key}": value for key, value in part.items()}, path)
            lost, number = (a + b for a, b in zip((lost, number), lost_mass([part]), strict=True))
            num_rows -= len(part["rows"])
            _refuse_lack_of_room(path, len(part["rows"]), num_rows)
        title: dict[str, Json] = {
            "subject": subject.describe(),
            "lost_mass": lost / number if number else 0.0,
            "files": dict(file_digests(new)),
        }
        write_file(new / TITLE, canonical.dumps(title))
    kept = find(store, subject)
    if kept is None:
        place = store.lessons.place(subject.key)
        raise StoreError(
            f"the answers of the teacher, just written to {place}, do not read back as written",
            expected="a disk that keeps what it is given, and a store that nobody empties during a run",
            fix="run again, or choose another place with --store",
        )
    return kept


def machine() -> str:
    """What decides about the last bits of an answer besides network and rows."""
    import torch

    return f"{target_device().type}, torch {torch.__version__}"


def encoding_digest(task: Task, processor: Processor, examples: Examples) -> str:
    """How rows reach a network: task, and tokens of all rows or settings of the image processor."""
    digest = hashlib.sha256(canonical.dumps(task.describe()))
    if hasattr(processor, "to_dict"):
        # Images are encoded again whenever they are looked at, so their processor's settings have to do.
        settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
        digest.update(settings.encode())
    elif processor is not None:
        for example in examples:
            for name in sorted(example):
                digest.update(name.encode())
                digest.update(_bytes(example[name]))
    return digest.hexdigest()


def _bytes(value: object) -> bytes:
    import numpy as np

    array = np.asarray(value)
    return f"{array.dtype.str}{array.shape}".encode() + array.tobytes()


def _title(folder: Path, subject: Subject) -> Mapping[str, Json] | None:
    """What a folder says about itself, if it is that lesson, undamaged."""
    try:
        title = canonical.loads((folder / TITLE).read_bytes())
        files = {name: sha for name, sha in file_digests(folder).items() if name != TITLE}
    except (OSError, IntegrityError, SourceError):
        return None
    if not isinstance(title, dict) or title.get("subject") != subject.describe():
        return None
    return title if title.get("files") == files else None


def _refuse_lack_of_room(path: Path, num_rows: int, num_left: int) -> None:
    """Say so after the first file rather than after hours."""
    needed = path.stat().st_size / num_rows * num_left
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StoreError(
            f"what the teacher says about {num_left} more rows takes about {needed / 1e9:.1f} GB, but the store's disk "
            f"has {free / 1e9:.1f} GB left",
            expected="room for the answers to all training rows",
            fix="keep less with `top_k` or without `hidden`, free some space, or choose another place with --store",
        )
