"""Writing so that a crash leaves the old state or the new one, and a failure is explained."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from reuselib.errors import StoreError

ANOTHER_STORE = "choose another place with --store or REUSELIB_STORE"

_ON_LINUX = sys.platform == "linux"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAILING = (errno.EIO, errno.ESTALE)
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
    elif number in _FAILING:
        fix = f"look after the disk (the system's log says more), or {otherwise}"
    elif number in _NOT_ALLOWED:
        fix = f"make it writable for this user, or {otherwise}"
    place = (isinstance(error, OSError) and error.filename) or path
    return StoreError(
        f"cannot write {place}: {os.strerror(number) if number else error} ({_room(path)})",
        expected="a folder on a disk with room that this user may write to",
        fix=fix,
    )


def blames_disk(error: Exception) -> bool:
    """Whether an error means a full, failing or read-only disk."""
    return _number(error) in (*_NO_ROOM, *_FAILING, errno.EROFS)


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
            with suppress(OSError):  # why it could not be written says more
                part.unlink(missing_ok=True)
        sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each with its name on the disk: else all that is put there may vanish with it.

    Raises:
        OSError: it cannot be made.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)  # another process may be as far
        with suppress(PermissionError):  # a folder in which one may write but not look
            sync(folder.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one act; False where the system cannot do that.

    Only Linux tells us how, by renameat2(2), and not every file system of its does it.

    Raises:
        OSError: it failed for another reason.
    """
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if _ON_LINUX else None
    if swap is None:
        return False
    if swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


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
