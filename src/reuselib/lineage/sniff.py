"""Files that would run code when opened, recognised by what they are rather than what they are called.

What is inside an archive counts as well; what cannot be looked into is refused, because a reader of the next library
may be able to.
"""

from __future__ import annotations

import io
import re
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from reuselib.errors import SourceError
from reuselib.scanning.archives import members
from reuselib.scanning.formats import CLOSED, CONTAINERS, EXECUTABLE, START, format_of
from reuselib.scanning.pickled import read_pickles

_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".exe")
_UNPICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
_PACKED = (".zip", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst")


def unsafe_format(path: Path) -> str:
    """Why a file must not be in a model folder; empty if it may.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _unsafe(path.name, file, inside=False)
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror}",
            fix="check that the path exists and its permissions",
        ) from error


def _unsafe(name: str, file: BinaryIO, *, inside: bool) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _CODE:
        return f"{suffix} files are code"
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(START)
    file.seek(0)
    if read_pickles(file) is not None:
        return "it is a pickle, which runs code when loaded"
    kind = format_of(start, size, name)
    if kind in EXECUTABLE:
        return f"it is a program ({kind})"
    if kind == "npy" and not _is_plain_array(start):
        return "it is a NumPy file of objects, which are pickled"
    if kind == "zip" and not inside:
        return _unsafe_zip(file)
    if kind in CONTAINERS or kind in CLOSED or (inside and suffix in _PACKED):
        return f"it is an archive ({kind}), whose content is not checked"
    if suffix in _UNPICKLED:
        return f"{suffix} files are unpickled by those who load them"
    return ""


def _unsafe_zip(file: BinaryIO) -> str:
    """Why a zip archive is unsafe: by its form, or by a file in it."""
    seems_empty = True
    for member in members(file, "zip"):
        seems_empty = False
        shown = repr(member.name[:80]) if member.name else "a file"
        for _, fault in member.faults:
            return f"it looks like a zip archive but cannot be read safely: {shown}: {fault}"
        if why := _unsafe(member.name, io.BytesIO(member.data), inside=True):
            return f"it is a zip archive with {shown}: {why}"
    # Readers differ in where they look for the list of files, so one that seems empty may not be.
    return "it is a zip archive in which no file can be found" if seems_empty else ""


def _is_plain_array(start: bytes) -> bool:
    """Whether a NumPy file holds numbers only: no field of any type is an object."""
    length = int.from_bytes(start[8:10] if start[6:7] == b"\x01" else start[8:12], "little")
    header = start[10 : 12 + length]
    # A header that is longer than what was read, or not the literal that NumPy writes, may say anything.
    return 12 + length <= START and b"descr" in header and not re.search(rb"['\"][|<>=]?O", header)
