"""Identity of a model folder: which files count, and their digest as in-toto's `dirHash`.

The files that count are the payload: everything but the model card, the record itself and the
signature, which all speak about the payload and so cannot be part of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.hashing import Span, sha256, sha256_all

SIGNATURE = "model.sig"
"""Where the signature is, in a model folder. It covers every other file."""
CARD = "README.md"
_MAX_DEPTH = 64

_UNPORTABLE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:|[. ]$|^\.{0,2}$")


@dataclass(frozen=True)
class Digests:
    """The identity of a model: of its files, and of its weights whatever the files."""

    dir_hash: str
    """`dirHash` of the payload: binds every file with its name."""
    tensor_hash: str
    """`tensorHash1`: stays the same when weights are resharded or repacked."""

    def to_json(self) -> dict[str, str]:
        """As a digest set of in-toto."""
        return {"dirHash": self.dir_hash, "tensorHash1": self.tensor_hash}


def file_sha256(path: Path) -> str:
    """SHA-256 of one file, as 64 hex digits."""
    return sha256(Span(path))


def file_digests(folder: Path, *, follow_links: bool = False) -> dict[str, str]:
    """SHA-256 of every payload file, by relative path."""
    names = payload_files(folder, follow_links=follow_links)
    return dict(zip(names, sha256_all([Span(folder / name) for name in names]), strict=True))


def dir_hash(files: Mapping[str, str]) -> str:
    """`dirHash` of files given by relative path and SHA-256."""
    return hashlib.sha256(checksums(files)).hexdigest()


def checksums(files: Mapping[str, str]) -> bytes:
    """The text behind `dirHash`. Also what `sha256sum -c` reads, so no tool of ours is needed to check a folder."""
    return b"".join(f"{files[name]}  {name}\n".encode() for name in sorted(files, key=os.fsencode))


def parse_checksums(data: bytes, *, path: str = "") -> dict[str, str]:
    """Read what `checksums` wrote.

    Raises:
        IntegrityError: `BAD_CHECKSUMS`, it is not exactly in that form.
    """
    text = data.decode("utf-8", "replace")
    files = {line[66:]: line[:64] for line in text.split("\n") if line}
    hexadecimal = all(re.fullmatch("[0-9a-f]{64}", digest) for digest in files.values())
    if not hexadecimal or checksums(files) != data:
        raise IntegrityError(
            "BAD_CHECKSUMS",
            f"{path or 'the list'} is not a list of `<sha256>  <path>` lines in byte order of path",
            path=path,
        )
    return files


def payload_files(folder: Path, *, follow_links: bool = False) -> list[str]:
    """Relative POSIX paths of the payload, in byte order.

    Args:
        folder: the model folder.
        follow_links: accept links into the `blobs` of the same repository, as the snapshots of a
        hub cache have them.

    Raises:
        SourceError: there is no such folder.
        IntegrityError: `UNSAFE_PATH`, something in the folder is not a plain file with a portable
        name.
    """
    names = all_files(folder, follow_links=follow_links)
    return [name for name in names if is_payload(name)]


def is_payload(name: str) -> bool:
    """Whether a file, by relative path, is part of the payload."""
    # Exact names, so that nothing hides in a folder that is called like the model card.
    return name not in (CARD, SIGNATURE) and not name.startswith("lineage/")


def all_files(folder: Path, *, follow_links: bool = False) -> list[str]:
    """As `payload_files`, with what is outside the payload."""
    if not folder.is_dir():
        raise SourceError(
            f"no folder {folder}",
            expected="a folder that holds a model",
            fix="check the path",
        )
    names = sorted(_walk(folder.resolve(), "", follow_links), key=os.fsencode)
    _refuse_twins(names)
    return names


def _walk(root: Path, inside: str, follow_links: bool) -> Iterator[str]:
    if inside.count("/") > _MAX_DEPTH:
        raise IntegrityError("LIMIT", f"folders nested deeper than {_MAX_DEPTH}", path=inside)
    try:
        entries = list(os.scandir(root / inside))
    except OSError as error:
        raise SourceError(
            f"cannot read {root / inside}: {error.strerror}",
            expected="a folder that this user may read",
            fix="check its permissions",
        ) from error
    for entry in entries:
        name = f"{inside}{entry.name}"
        if not is_portable(entry.name):
            raise _unsafe(name, "its name means something else, or nothing, on other systems")
        if entry.is_symlink():
            if not (follow_links and _is_blob(root, Path(entry.path))):
                raise _unsafe(name, "it is a symbolic link, whose target may be anything")
            yield name
        elif entry.is_dir():
            yield from _walk(root, f"{name}/", follow_links)
        elif entry.is_file():
            yield name
        else:
            raise _unsafe(name, "it is neither a file nor a folder")


def is_portable(name: str) -> bool:
    """Whether the name of one file or folder means the same on all systems."""
    # The file system's undecodable bytes arrive as lone surrogates.
    is_unicode = not any("\ud800" <= char <= "\udfff" for char in name)
    return is_unicode and "/" not in name and not _UNPORTABLE.search(name)


def _is_blob(root: Path, link: Path) -> bool:
    """Whether a link stays in its own repository: `<repo>/snapshots/<commit>/...` to a file in `<repo>/blobs`."""
    target = link.resolve()
    blobs = root.parent.parent / "blobs"
    return root.parent.name == "snapshots" and target.parent == blobs and target.is_file()


def _refuse_twins(names: Iterable[str]) -> None:
    """Names that some file systems take for one would let the folder change its meaning when copied."""
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if key in seen:
            raise _unsafe(name, f"some file systems take it for {seen[key]!r}")
        seen[key] = name


def _unsafe(name: str, why: str) -> IntegrityError:
    shown = name.encode("utf-8", "backslashreplace").decode()
    return IntegrityError(
        "UNSAFE_PATH",
        f"{shown!r}: {why}",
        path=shown,
        fix="keep only plain files with portable names in a model folder",
    )
