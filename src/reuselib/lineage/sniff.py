"""Files that would run code when opened, recognised by what they are rather than what they are called."""

from __future__ import annotations

import zipfile
from pathlib import Path

from reuselib.errors import SourceError

_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".exe")
_UNPICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x8b": "gzip",
}
_MAX_MEMBERS = 10_000


def unsafe_format(path: Path) -> str:
    """Why a file must not be in a model folder; empty if it may."""
    suffix = path.suffix.lower()
    if suffix in _CODE:
        return f"{suffix} files are code"
    try:
        with path.open("rb") as file:
            start = file.read(128)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    if _is_pickle(start):
        return "it is a pickle, which runs code when loaded"
    if start.startswith(b"\x93NUMPY") and b"O" in start.partition(b"descr")[2][:12]:
        return "it is a NumPy file of objects, which are pickled"
    for magic, kind in _ARCHIVES.items():
        if start.startswith(magic):
            return _unsafe_archive(path, kind)
    if suffix in _UNPICKLED:
        return f"{suffix} files are unpickled by those who load them"
    return ""


def _is_pickle(start: bytes) -> bool:
    # Protocol 2 and later begin with a mark and their number. Older ones are text; those of torch
    # begin with a number.
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _unsafe_archive(path: Path, kind: str) -> str:
    if kind != "zip":
        return f"it is a {kind} archive, whose content is not checked"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return f"it looks like a zip archive but cannot be read ({error})"
    if len(members) > _MAX_MEMBERS:
        return f"it is a zip archive of {len(members)} files"
    bad = (*_CODE, *_UNPICKLED, ".zip", ".7z", ".npy")
    for member in members:
        if member.lower().endswith(bad):
            return f"it is a zip archive with {member[:80]!r}, which runs code when loaded"
    return ""
