"""What frozen blocks give for training rows, kept on disk under a key of everything that it depends on.

In `activations/` of the store, each in a folder of safetensors files with `activations.json`, which says what the
values are of and has the SHA-256 of each file. It may be thrown away at any time; then they are computed again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reuselib.errors import IntegrityError, SourceError, StoreError
from reuselib.lineage import canonical
from reuselib.lineage.digest import file_digests
from reuselib.lineage.disk import write_file
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Json

TITLE = "activations.json"
FILE_BYTES = 2**26
"""Size of a file, and so about what is held in memory before it is written."""


@dataclass(frozen=True)
class Shelf:
    """Where activations may be kept, and of which rows."""

    store: Store
    rows: str
    """Digest of the training rows."""
    max_bytes: int
    """Room for those of one training."""


class Part(NamedTuple):
    """Activations of some rows."""

    rows: Tensor
    """Their numbers, int64: [rows]."""
    counts: Tensor
    """How many positions each has, int64: [rows]."""
    values: Tensor
    """Of all positions of all rows, one after another: [positions, ...]."""


@dataclass(frozen=True)
class Activations:
    """Of many rows, read from the disk as they are asked for."""

    parts: Sequence[Part]
    where: Mapping[int, tuple[int, int, int]] = field(init=False, repr=False)
    """Row -> its part, and from where to where its positions are there."""

    def __post_init__(self) -> None:
        where: dict[int, tuple[int, int, int]] = {}
        for number, part in enumerate(self.parts):
            end = 0
            for row, count in zip(part.rows.tolist(), part.counts.tolist(), strict=True):
                where[row] = (number, end, end + count)
                end += count
        object.__setattr__(self, "where", where)

    def of(self, rows: Sequence[int]) -> Tensor:
        """The positions of those rows, one after another, in their order: [positions, ...]."""
        import torch

        places = [self.where[row] for row in rows]
        return torch.cat([self.parts[number].values[start:end] for number, start, end in places])


def flat(value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The positions of all rows, one after another and without padding [positions, ...], and how many each row has.

    Without a mask each row is one position.
    """
    import torch

    if mask is None:
        return value, torch.ones(len(value), dtype=torch.int64)
    return value[mask.bool()], mask.sum(dim=1)


def laid_out(values: Tensor, mask: Tensor | None) -> Tensor:
    """The other way round; zeros where a row is padded, since nothing may depend on what is there."""
    if mask is None:
        return values
    given = values.new_zeros((*mask.shape, *values.shape[1:]))
    given[mask.bool()] = values
    return given


def find(store: Store, subject: Mapping[str, Json]) -> Activations | None:
    """What is kept of that subject, if every byte is as it was written; damaged or foreign ones count as absent."""
    folder = store.activations.place(key(subject))
    if not _is_whole(folder, subject):
        return None
    tensors = Tensors(folder)
    names = sorted({name.partition("/")[0] for name in tensors})
    return Activations(
        [Part(*(tensors[f"{name}/{each}"] for each in Part._fields)) for name in names]
    )


def write(store: Store, subject: Mapping[str, Json], parts: Iterable[Part]) -> Activations:
    """Write activations, whole or not at all, and read them back.

    Raises:
        StoreError: the store cannot be written, or has no room.
    """
    name = key(subject)
    with store.activations.fill(name, is_whole=lambda at: _is_whole(at, subject)) as new:
        for count, part in enumerate(_joined(parts)):
            path = new / f"{count:05d}.safetensors"
            save_tensors(
                {f"{path.stem}/{each}": value for each, value in part._asdict().items()}, path
            )
        title: dict[str, Json] = {"subject": dict(subject), "files": dict(file_digests(new))}
        write_file(new / TITLE, canonical.dumps(title))
    kept = find(store, subject)
    if kept is None:
        place = store.activations.place(name)
        raise StoreError(
            f"the outputs of frozen blocks, just written to {place}, do not read back as written",
            expected="a disk that keeps what it is given, and a store that nobody empties during a run",
            fix="run again, or choose another place with --store",
        )
    return kept


def refuse_lack_of_room(store: Store, num_bytes: int) -> None:
    """See that there is room before anything is computed.

    Not having it is an error and no reason to train another way: how rounding falls must not depend on how full a disk
    is.

    Raises:
        StoreError: there is not.
    """
    place = next(each for each in (store.path, *store.path.parents) if each.exists())
    free = shutil.disk_usage(place).free
    if num_bytes > free:
        raise StoreError(
            f"the outputs of frozen blocks take about {num_bytes / 1e9:.1f} GB, but the store's disk has "
            f"{free / 1e9:.1f} GB left",
            expected="room for what is used again in every epoch",
            fix="free some space, choose another place with --store, or do without with `Runtime(cache_bytes=0)`",
        )


def key(subject: Mapping[str, Json]) -> str:
    """64 hex digits."""
    return hashlib.sha256(canonical.dumps(dict(subject))).hexdigest()


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """The same rows in fewer parts, each of about `FILE_BYTES`."""
    import torch

    waiting: list[Part] = []

    def flush() -> Part:
        return Part(*(torch.cat(each) for each in zip(*waiting, strict=True)))

    for part in parts:
        waiting.append(part)
        if sum(each.values.nbytes for each in waiting) >= FILE_BYTES:
            yield flush()
            waiting = []
    if waiting:
        yield flush()


def _is_whole(folder: Path, subject: Mapping[str, Json]) -> bool:
    try:
        title = canonical.loads((folder / TITLE).read_bytes())
        files = {name: sha for name, sha in file_digests(folder).items() if name != TITLE}
    except (OSError, IntegrityError, SourceError):
        return False
    return isinstance(title, dict) and title == {"subject": dict(subject), "files": files}
