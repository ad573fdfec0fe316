"""Children kept packed: a tensor that several of them hold is on the disk once.

`packed/<derivation id>/` holds a child without its weights (`files/`), what its weight files hold
besides shared tensors (`rests/`: headers and small tensors), and how each file is put together
(`pieces.json`). `tensors/<first two digits>/<sha256>` are the tensors, by digest. Unpacked, a child
is what it was, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from reuselib.errors import IntegrityError, StoreError
from reuselib.lineage import canonical
from reuselib.lineage.disk import sync, sync_tree, write_file
from reuselib.lineage.hashing import Span, sha256_all
from reuselib.lineage.headers import read_header

if TYPE_CHECKING:
    from hashlib import _Hash

    from reuselib.adapter import Json

MIN_PIECE = 4096
"""Bytes; what is smaller would take more room as a file of its own."""
LIST, FILES, _RESTS = "pieces.json", "files", "rests"
_MAX_LIST = 2**28
_CHUNK = 2**20
_DIGEST = "([0-9a-f]{64})?"


@dataclass(frozen=True)
class Piece:
    """Some bytes of a weight file, in the order of the file."""

    num_bytes: int
    sha256: str = ""
    """Of the shared tensor that these are; none if they are in the rest."""


@dataclass(frozen=True)
class Contents:
    """How a packed child is put together."""

    digests: Mapping[str, str]
    """SHA-256 of every file of the child, by relative path."""
    weights: Mapping[str, Sequence[Piece]]
    """The files that are made of pieces."""

    @property
    def tensors(self) -> dict[str, int]:
        """Size of each shared tensor, by digest."""
        pieces = (piece for each in self.weights.values() for piece in each)
        return {piece.sha256: piece.num_bytes for piece in pieces if piece.sha256}

    def dump(self) -> bytes:
        """As JSON."""
        weights = {
            name: [[each.num_bytes, each.sha256] for each in pieces]
            for name, pieces in self.weights.items()
        }
        return canonical.dumps({"version": 1, "digests": dict(self.digests), "weights": weights})

    @classmethod
    def read(cls, folder: Path) -> Contents:
        """Of a packed child.

        Raises:
            StoreError: the list is damaged.
            OSError: it cannot be read.
        """
        try:
            value = canonical.loads((folder / LIST).read_bytes(), path=LIST, limit=_MAX_LIST)
        except IntegrityError as error:
            raise _damaged(folder, error.what) from error
        if not isinstance(value, dict) or value.get("version") != 1:
            raise _damaged(folder, f"{LIST} is not what this version writes")
        digests, weights = value.get("digests"), value.get("weights")
        if not isinstance(digests, dict) or not isinstance(weights, dict):
            raise _damaged(folder, f"{LIST} says nothing of digests and weights")
        for name in (*digests, *weights):
            _refuse_leaving(folder, name)
        return cls(
            {name: str(digest) for name, digest in digests.items()},
            {name: [_piece(folder, each) for each in _list(weights[name])] for name in weights},
        )


def cut(path: Path) -> list[tuple[Span, bool]]:
    """A weight file in pieces: where each is, and whether it is worth a file of its own."""
    tensors = sorted(read_header(path).values(), key=lambda info: (info.start, info.end))
    pieces: list[tuple[Span, bool]] = []
    cursor = 0
    for info in tensors:
        if info.end - info.start < MIN_PIECE:
            continue
        if info.start > cursor:
            pieces.append((Span(path, cursor, info.start), False))
        pieces.append((Span(path, info.start, info.end), True))
        cursor = info.end
    size = path.stat().st_size
    return [*pieces, (Span(path, cursor, size), False)] if size > cursor else pieces


def pack(source: Path, tensors: Path, target: Path, scratch: Path) -> Contents:
    """Write a child in packed form.

    Args:
        source: the child, whose bytes match its record.
        tensors: folder of the shared tensors; those that are not there yet are added. They are on the disk when this
            returns, before anything names them.
        target: an empty folder, which becomes the packed child.
        scratch: an empty folder on the disk of `tensors`.

    Raises:
        IntegrityError: a weight file is malformed.
        OSError: something cannot be written.
    """
    names = sorted(
        path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()
    )
    digests = dict(zip(names, sha256_all([Span(source / name) for name in names]), strict=True))
    weights: dict[str, Sequence[Piece]] = {}
    wanted: dict[str, Span] = {}
    for name in names:
        if "/" not in name and name.endswith(".safetensors"):
            pieces = cut(source / name)
            shared = sha256_all([span for span, own in pieces if own])
            weights[name] = _write_rest(target / _RESTS / name, pieces, shared)
            wanted |= zip(shared, (span for span, own in pieces if own), strict=True)
        else:
            _copy_file(source / name, target / FILES / name)
    _add(wanted, tensors, scratch)
    contents = Contents(digests, weights)
    write_file(target / LIST, contents.dump())
    return contents


def unpack(folder: Path, tensors: Path, target: Path) -> None:
    """Put a packed child together again in an empty folder, with the digest of every file compared.

    Raises:
        StoreError: something is damaged or missing.
        OSError: something cannot be written, or the packed child is gone.
    """
    contents = Contents.read(folder)
    for name in contents.digests:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            _restore(folder, contents, name, tensors, file)


def read_back(folder: Path, tensors: Path) -> None:
    """See that a packed child can be unpacked, without writing it; raises as `unpack`."""
    contents = Contents.read(folder)
    with Path(os.devnull).open("wb") as nowhere:
        for name in contents.digests:
            _restore(folder, contents, name, tensors, nowhere)


def unnamed(packed: Path, tensors: Path) -> Iterator[Path]:
    """The shared tensors that no packed child names.

    Raises:
        StoreError: a list of pieces cannot be read, so that nothing can be said.
    """
    named: set[str] = set()
    for folder in sorted(packed.glob("*")):
        named |= Contents.read(folder).tensors.keys()
    yield from (path for path in sorted(tensors.glob("*/*")) if path.name not in named)


def tensor_path(tensors: Path, sha256: str) -> Path:
    """Where a shared tensor is."""
    return tensors / sha256[:2] / sha256


def _write_rest(
    path: Path, pieces: Sequence[tuple[Span, bool]], shared: Sequence[str]
) -> list[Piece]:
    """Keep what is not worth a file of its own, and say how the whole is put together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digests, written = iter(shared), []
    with path.open("wb") as file:
        for span, own in pieces:
            written.append(Piece(span.size, next(digests) if own else ""))
            if not own:
                _copy_span(span, file)
    return written


def _add(wanted: Mapping[str, Span], tensors: Path, scratch: Path) -> None:
    """Bring shared tensors to where they belong; what is there is read, for it may have been damaged since."""
    missing: list[str] = []
    present = [sha for sha in wanted if tensor_path(tensors, sha).is_file()]
    found = sha256_all([Span(tensor_path(tensors, sha)) for sha in present])
    damaged = {sha for sha, actual in zip(present, found, strict=True) if sha != actual}
    missing = sorted(damaged | (wanted.keys() - set(present)))
    for sha in missing:
        with (scratch / sha).open("wb") as file:
            _copy_span(wanted[sha], file)
    sync_tree(scratch)
    for sha in missing:
        path = tensor_path(tensors, sha)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / sha, path)
    # Of those that were there too: who put them there may have been killed before that.
    for parent in sorted({tensor_path(tensors, sha).parent for sha in wanted}):
        sync(parent)
    if wanted:
        sync(tensors)
        sync(tensors.parent)


def _restore(folder: Path, contents: Contents, name: str, tensors: Path, file: BinaryIO) -> None:
    """Write one file of a packed child."""
    if name in contents.weights:
        found = _join(folder, name, contents.weights[name], tensors, file)
    else:
        with (folder / FILES / name).open("rb") as source:
            found = _copy(source, file)
    if found != contents.digests[name]:
        raise _damaged(folder, f"{name} does not come out as it was packed")


def _join(folder: Path, name: str, pieces: Sequence[Piece], tensors: Path, file: BinaryIO) -> str:
    """Write a weight file from its pieces; return its digest."""
    digest = hashlib.sha256()
    with (folder / _RESTS / name).open("rb") as rest:
        for piece in pieces:
            if not piece.sha256:
                _copy(rest, file, digest, piece.num_bytes)
                continue
            try:
                with tensor_path(tensors, piece.sha256).open("rb") as source:
                    _copy(source, file, digest, piece.num_bytes)
            except FileNotFoundError as error:
                if not folder.is_dir():
                    raise  # taken away meanwhile, as a whole
                raise _damaged(folder, f"tensor {piece.sha256} is missing") from error
    return digest.hexdigest()


def _copy_span(span: Span, file: BinaryIO) -> None:
    with span.path.open("rb") as source:
        source.seek(span.start)
        _copy(source, file, num_bytes=span.size)


def _copy(
    source: BinaryIO, file: BinaryIO, digest: _Hash | None = None, num_bytes: int = -1
) -> str:
    """Copy some bytes, or all; return the digest of what was copied."""
    digest = digest or hashlib.sha256()
    left = num_bytes
    while left:
        data = source.read(_CHUNK if left < 0 else min(left, _CHUNK))
        if not data:
            break  # too short, which the digest of the file will tell
        digest.update(data)
        file.write(data)
        left -= len(data) if left > 0 else 0
    return digest.hexdigest()


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _piece(folder: Path, value: Json) -> Piece:
    match value:
        case [int(num_bytes), str(sha256)] if num_bytes >= 0 and re.fullmatch(_DIGEST, sha256):
            return Piece(num_bytes, sha256)
        case _:
            raise _damaged(folder, f"{LIST} is no list of pieces")


def _refuse_leaving(folder: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise _damaged(folder, f"{name!r} leads out of it")


def _damaged(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"the packed child {folder.name[:12]} is damaged: {why}",
        expected="a child whose bytes match its record",
        fix=f"remove {folder} and run again; it will be computed anew",
    )
