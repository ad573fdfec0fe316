"""Writing so that a crash leaves the old state or the new one, and a failure is explained."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from reuselib.errors import StoreError

ANOTHER_STORE = "choose another place with --store or REUSELIB_STORE"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def writing(path: Path, *, otherwise: str = ANOTHER_STORE) -> Iterator[None]:
    """Turn a failure to write at `path` into words; `otherwise` is what the user can do instead.

    Raises:
        StoreError: in place of any `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise explain(error, path, otherwise) from error


def explain(error: Exception, path: Path, otherwise: str = ANOTHER_STORE) -> StoreError:
    """What could not be written, why, how much room is left, and what to do."""
    number = _number(error)
    fix = otherwise
    if number in _NO_ROOM:
        fix = f"free some space, or {otherwise}"
    elif number in _NOT_ALLOWED:
        fix = f"make it writable for this user, or {otherwise}"
    place = (isinstance(error, OSError) and error.filename) or path
    return StoreError(
        f"cannot write {place}: {os.strerror(number) if number else error} ({_room(path)})",
        expected="a folder on a disk with room that this user may write to",
        fix=fix,
    )


def no_room(error: Exception) -> bool:
    """Whether an error means a full or read-only disk."""
    return _number(error) in (*_NO_ROOM, errno.EROFS)


def _number(error: Exception) -> int | None:
    """The system's number of an error, also when a library left it in the text only."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"(?:\[Errno|\(os error) (\d+)[\])]", str(error))
    return int(found[1]) if found else None


def _room(path: Path) -> str:
    place = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
    try:
        return f"{shutil.disk_usage(place).free} bytes free"
    except OSError:
        return "free space unknown"


def write_file(path: Path, data: bytes, *, otherwise: str = ANOTHER_STORE) -> None:
    """Write a file so that it holds its old content or all of the new, whatever happens.

    Raises:
        StoreError: it cannot be written; `otherwise` is what the user can do instead.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    with writing(path, otherwise=otherwise):
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            error.filename = str(path)  # nobody knows the part by its name
            raise
        finally:
            part.unlink(missing_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Force a file or a folder's list of names onto the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders, and writes their names by itself.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force everything in a folder onto the disk, files before the folders that name them."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))
