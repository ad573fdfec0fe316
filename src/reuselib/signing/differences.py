"""How the files at hand differ from those that were signed, each difference with its code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reuselib.errors import IntegrityError
from reuselib.lineage.compare import is_loadable, is_surely_loadable
from reuselib.lineage.digest import SIGNATURE, is_payload
from reuselib.lineage.manifest import MANIFEST
from reuselib.signing.extra import needing_extra
from reuselib.signing.statement import Resource, Statement

_CHUNK = 2**20


def differences(
    folder: Path, statement: Statement, files: Mapping[str, str]
) -> Iterator[IntegrityError]:
    """What is not as it was signed.

    Args:
        folder: the model.
        statement: what was signed.
        files: SHA-256 of every file but the signature, by relative path.

    Raises:
        OSError: a file cannot be read.
        MissingExtra: digests are by an algorithm that needs `reuselib[sign]`.
    """
    pieces: dict[str, list[Resource]] = {}
    for each in statement.resources:
        pieces.setdefault(each.file, []).append(each)
    changed = {
        name
        for name in pieces
        if name in files and not _is_same(folder, pieces[name], statement.hash_type, files[name])
    }
    if MANIFEST in changed:
        yield _other_record(statement, files, changed)
        return
    for name in sorted(changed):
        yield IntegrityError("DIGEST_MISMATCH", f"{name} is not what was signed", path=name)
    for name in sorted(set(pieces) - set(files) - {SIGNATURE}):
        yield IntegrityError("MISSING_FILE", f"{name} was signed but is not there", path=name)
    for name in sorted(set(files) - set(pieces)):
        yield from _unsigned(folder, name, statement)


def _is_same(folder: Path, pieces: Iterable[Resource], hash_type: str, sha256: str) -> bool:
    """Whether the pieces are those of a file, and leave nothing of it out."""
    cursor = size = 0
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if piece.end is None and hash_type == "sha256":
            return piece.digest == sha256
        if piece.start != cursor or _digest(folder, piece, hash_type) != piece.digest:
            return False
        size = (folder / piece.file).stat().st_size
        cursor = size if piece.end is None else piece.end
    return cursor == size


def _digest(folder: Path, piece: Resource, hash_type: str) -> str:
    digest = _algorithm(hash_type)
    left = None if piece.end is None else piece.end - piece.start
    with (folder / piece.file).open("rb") as file:
        file.seek(piece.start)
        while chunk := file.read(_CHUNK if left is None else min(left, _CHUNK)):
            digest.update(chunk)
            left = None if left is None else left - len(chunk)
    return digest.hexdigest()


def _algorithm(hash_type: str) -> Any:
    if hash_type != "blake3":
        return hashlib.new(hash_type)
    with needing_extra():
        from blake3 import blake3

    return blake3()


def _other_record(
    statement: Statement, files: Mapping[str, str], changed: set[str]
) -> IntegrityError:
    """The signed manifest is another: that of another model, or of this one before somebody edited it."""
    payload = {name for name in files if is_payload(name)}
    signed = {name for name in statement.files if is_payload(name)}
    if payload == signed and not payload & changed:
        what = f"{MANIFEST} was changed after the model was signed"
        return IntegrityError("BAD_SIGNATURE", what, path=MANIFEST)
    what = f"{SIGNATURE} is about another model or another version of it (signed as {statement.name!r})"
    return IntegrityError("SUBJECT_MISMATCH", what, path=SIGNATURE)


def _unsigned(folder: Path, name: str, statement: Statement) -> Iterator[IntegrityError]:
    # A signature in pieces has none for a file without content.
    in_pieces = any(each.end is not None for each in statement.resources)
    if in_pieces and (folder / name).stat().st_size == 0:
        return
    # Signers may leave out what they like, under any name; what the record knows of it is compared with the record.
    left_out = statement.ignores(name)
    if left_out and (is_surely_loadable(name) or name == MANIFEST):
        what = f"{name} would be loaded, but the signer left it out"
        yield IntegrityError("UNSIGNED_LOADABLE", what, path=name)
    elif not left_out and is_loadable(name):
        what = f"{name} was not signed, and some library may load it"
        yield IntegrityError("UNSIGNED_LOADABLE", what, path=name)
    elif not left_out:
        yield IntegrityError("UNSIGNED_FILE", f"{name} was not signed", path=name)
