"""Sees every change that a process makes to the files below a folder, and can make any one of them go wrong.

Python's own ways to write are replaced in this process: nothing in the product knows of it. What compiled code writes
by itself (safetensors, tokenizers) is done in memory first and then written here. Whether nothing was missed shows when
a recording is played back: the tree must come out the same, see `disks.Disk`.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_ORIGINAL = {
    name: getattr(os, name)
    for name in (
        "open",
        "write",
        "fsync",
        "truncate",
        "mkdir",
        "rename",
        "replace",
        "unlink",
        "rmdir",
    )
}
_OPEN = io.open


@dataclass(frozen=True)
class Operation:
    """One change, or one promise of the disk to keep what was changed."""

    kind: str
    """`create` (a file, or empty one), `write`, `fsync`, `mkdir`, `rename`, `exchange`, `unlink` or `rmdir`."""
    path: str
    """From the watched folder on."""
    other: str = ""
    """Where something is renamed to, or what it changes places with."""
    start: int = 0
    """Where in the file."""
    data: bytes = b""
    site: str = ""
    """The line of the product that did it, or had it done."""


@dataclass(frozen=True)
class Mishap:
    """What goes wrong, at which operation."""

    at: int
    """Number of the operation; one that never comes does no harm."""
    how: str
    """`kill` before it is done, `kill-after`, or the name of an error such as `ENOSPC`. Of a write, half is done first.
    `short` writes half and says so, as the system may at any time."""

    def meet(
        self, do: Callable[[], Any], half: Callable[[], int] | None, at_end: Callable[[], None]
    ) -> Any:
        """In place of the operation; `at_end` is done before the process is killed."""
        if self.how == "kill-after":
            do()
        elif half is not None:
            written = half()
            if self.how == "short":
                return written
        if self.how.startswith("kill"):
            at_end()
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.how)
        raise OSError(number, os.strerror(number))


@dataclass
class Watch:
    """The operations of this process below a folder."""

    root: Path
    mishap: Mishap | None = None
    log: list[Operation] = field(default_factory=list)
    keep: bool = True
    """Keep what is written too, and by which line."""
    at_end: Callable[[], None] = lambda: None
    """Done before a mishap kills this process."""

    def install(self) -> None:
        """From now on until this process ends."""
        os.open, os.write, os.fsync = self._os_open, self._os_write, self._fsync  # type: ignore[assignment]
        os.fdatasync = self._fsync  # type: ignore[assignment]
        os.truncate = os.ftruncate = self._truncate  # type: ignore[assignment]
        os.mkdir, os.rmdir = self._mkdir, self._rmdir  # type: ignore[assignment]
        os.unlink = os.remove = self._unlink  # type: ignore[assignment]
        os.rename, os.replace = self._rename, self._replace  # type: ignore[assignment]
        io.open = builtins.open = self._open  # type: ignore[assignment]
        shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined]
        shutil._USE_CP_COPY_FILE_RANGE = False  # type: ignore[attr-defined]
        self._install_compiled()

    def below(self, path: Any, dir_fd: int | None = None) -> str | None:
        """A path from the watched folder on; None if it is elsewhere."""
        if isinstance(path, int):
            full = os.readlink(f"/proc/self/fd/{path}")
        else:
            where = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
            full = os.path.normpath(os.path.join(where, os.fsdecode(path)))
        return os.path.relpath(full, self.root) if Path(full).is_relative_to(self.root) else None

    def do(
        self, operation: Operation, do: Callable[[], Any], half: Callable[[], int] | None = None
    ) -> Any:
        """Do it, unless it is the one that goes wrong."""
        number = len(self.log)
        self.log.append(replace(operation, site=_site()) if self.keep else operation)
        if self.mishap is not None and self.mishap.at == number:
            return self.mishap.meet(do, half, self.at_end)
        return do()

    def _os_open(
        self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        place = self.below(path, dir_fd)

        def do() -> int:
            return _ORIGINAL["open"](path, flags, mode, dir_fd=dir_fd)

        if place is None or not (self.root / place).parent.is_dir():
            return do()
        if not flags & os.O_TRUNC and not (
            flags & os.O_CREAT and not os.path.lexists(self.root / place)
        ):
            return do()
        return self.do(Operation("create", place), do)

    def _os_write(self, descriptor: int, data: Any) -> int:
        place = self.below(descriptor)
        view = memoryview(data).cast("B")
        if place is None:
            return _ORIGINAL["write"](descriptor, view)
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        return self.do(
            Operation("write", place, start=start, data=bytes(view) if self.keep else b""),
            lambda: _ORIGINAL["write"](descriptor, view),
            lambda: _ORIGINAL["write"](descriptor, view[: len(view) // 2]),
        )

    def _fsync(self, file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        place = self.below(descriptor)
        if place is None:
            return _ORIGINAL["fsync"](descriptor)
        # a tiny disk full of tests is not made to wait: what is promised is in the log
        return self.do(Operation("fsync", place), lambda: None)

    def _truncate(self, file: Any, length: int) -> None:
        place = self.below(file)

        def do() -> None:
            return _ORIGINAL["truncate"](file, length)

        if place is None:
            return do()
        assert length == 0, "only emptying a file is played back"
        return self.do(Operation("create", place), do)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        place = self.below(path, dir_fd)

        def do() -> None:
            return _ORIGINAL["mkdir"](path, mode, dir_fd=dir_fd)

        full = self.root / (place or "")
        if place is None or os.path.lexists(full) or not full.parent.is_dir():
            return do()  # it fails by itself
        return self.do(Operation("mkdir", place), do)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        place = self.below(path, dir_fd)

        def do() -> None:
            return _ORIGINAL["unlink"](path, dir_fd=dir_fd)

        if place is None or not os.path.lexists(self.root / place):
            return do()
        return self.do(Operation("unlink", place), do)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        place = self.below(path, dir_fd)

        def do() -> None:
            return _ORIGINAL["rmdir"](path, dir_fd=dir_fd)

        if place is None or os.listdir(self.root / place):
            return do()
        return self.do(Operation("rmdir", place), do)

    def _rename(self, source: Any, target: Any, **descriptors: Any) -> None:
        return self._move("rename", source, target)

    def _replace(self, source: Any, target: Any, **descriptors: Any) -> None:
        return self._move("replace", source, target)

    def _move(self, name: str, source: Any, target: Any) -> None:
        place, other = self.below(source), self.below(target)

        def do() -> None:
            return _ORIGINAL[name](source, target)

        full = os.path.isdir(target) and os.listdir(target)
        if place is None or other is None or full or not os.path.lexists(source):
            return do()
        return self.do(Operation("rename", place, other), do)

    def exchange(self, original: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
        """In place of `reuselib.lineage.disk.exchange`, which asks the system itself."""

        def exchange(one: Any, other: Any) -> bool:
            return self.do(
                Operation("exchange", self.below(one) or "", self.below(other) or ""),
                lambda: original(one, other),
            )

        return exchange

    def _open(  # noqa: PLR0913 - those of `open`
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        place = self.below(file) if set(mode) & set("wax+") else None
        if place is None:
            return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        letters = mode.replace("b", "").replace("t", "")
        if not isinstance(file, int) and ("w" in letters or not os.path.lexists(file)):
            if "r" in letters or ("x" in letters and os.path.lexists(file)):
                return _OPEN(file, mode)  # fails by itself
            raw = self.do(
                Operation("create", place), lambda: _File(self, file, letters, closefd, opener)
            )
        else:
            raw = _File(self, file, letters, closefd, opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in letters else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

    def _install_compiled(self) -> None:
        import safetensors
        import safetensors.torch
        import tokenizers

        def serialize_file(tensors: Any, path: Any, metadata: Any = None) -> None:
            self._write(path, safetensors.serialize(tensors, metadata))

        safetensors.torch.serialize_file = serialize_file  # type: ignore[assignment]

        def save(tokenizer: Any, path: str, pretty: bool = True) -> None:
            self._write(path, tokenizer.to_str(pretty).encode())

        tokenizers.Tokenizer.save = save  # type: ignore[method-assign]

    def _write(self, path: Any, data: bytes) -> None:
        """As compiled code does it: errors carry the system's number in their text only."""
        try:
            with self._open(os.fspath(path), "wb") as file:
                file.write(data)
        except OSError as error:
            raise RuntimeError(f"I/O error: {error.strerror} (os error {error.errno})") from None


class _File(io.FileIO):
    """A file whose writes are seen."""

    def __init__(self, watch: Watch, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        self._watch = watch
        super().__init__(file, mode, closefd, opener)

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        place = self._watch.below(self.fileno())
        if place is None:
            return super().write(view)
        start = os.lseek(self.fileno(), 0, os.SEEK_END if "a" in self.mode else os.SEEK_CUR)
        return self._watch.do(
            Operation("write", place, start=start, data=bytes(view) if self._watch.keep else b""),
            lambda: super(_File, self).write(view),
            lambda: super(_File, self).write(view[: max(len(view) // 2, 1)]),
        )


def _site() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if f"{os.sep}reuselib{os.sep}" in name:
            return f"{name.rpartition(f'{os.sep}reuselib{os.sep}')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
