"""Claims: who makes which child now, so that two runs on one store do not make the same one twice.

A claim is a file with a lock that ends with its process. It says what else the process needs, so that
whoever tidies up leaves that alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from reuselib.errors import IntegrityError, StoreError
from reuselib.lineage import canonical
from reuselib.lineage.disk import make_folder, writing
from reuselib.lineage.locks import same_file, try_lock, wait_for

_SUFFIX = ".claim"
_MAX_BYTES = 2**20
_NUM_LOOKS, _PAUSE = 20, 0.02


@dataclass(frozen=True)
class Claims:
    """Those of one store."""

    folder: Path

    @contextmanager
    def hold(
        self, name: str, needs: Sequence[str], waiting: Callable[[str], None] | None = None
    ) -> Iterator[bool]:
        """Have something to oneself during the block.

        On a disk without locks everyone gets it at once, as if nobody else were there.

        Args:
            name: of what is claimed, fit for a file's name.
            needs: what else must stay meanwhile: derivation ids, or `dirHash`es.
            waiting: called once if another process has it, with that process in words.

        Yields:
            Whether another process had it first and is done.

        Raises:
            StoreError: the folder cannot be written.
        """
        with self._held(name, waiting) as (descriptor, waited):
            self._say(descriptor, needs)
            yield waited

    @contextmanager
    def keep(self, needs: Sequence[str]) -> Iterator[Callable[[Sequence[str]], None]]:
        """Have things stay during the block; more of them by calling what this yields.

        Where nothing can be written nothing is claimed, so that finished children can be had from such a place too.

        Args:
            needs: derivation ids, or `dirHash`es.
        """
        named = set(needs)
        with ExitStack() as stack:
            descriptor = None
            with suppress(StoreError):
                descriptor = stack.enter_context(self._held(f"run-{uuid4().hex}", None))[0]

            def more(names: Sequence[str]) -> None:
                named.update(names)
                if descriptor is not None:
                    with suppress(StoreError):
                        self._say(descriptor, named)

            more(())
            yield more

    def held(self) -> Mapping[str, frozenset[str]]:
        """What living processes claim, and what each of them needs. Rests of dead ones are removed."""
        found: dict[str, frozenset[str]] = {}
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            with suppress(OSError):  # done meanwhile
                if (needs := _claimed(path)) is not None:
                    found[path.name.removesuffix(_SUFFIX)] = needs
        return found

    @contextmanager
    def _held(self, name: str, waiting: Callable[[str], None] | None) -> Iterator[tuple[int, bool]]:
        """The open file of a claim, and whether that took waiting."""
        with writing(self.folder):
            make_folder(self.folder)
        path = self.folder / f"{name}{_SUFFIX}"
        descriptor, waited = self._take(path, waiting)
        try:
            yield descriptor, waited
        finally:
            # Before the lock goes: whoever waits for it sees that the file is another by now, and tries again.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(descriptor)

    def _say(self, descriptor: int, needs: Iterable[str]) -> None:
        with writing(self.folder):
            _write(descriptor, {"process": os.getpid(), "needs": sorted(set(needs))})

    def _take(self, path: Path, waiting: Callable[[str], None] | None) -> tuple[int, bool]:
        """An open file whose lock is held, and whether that took waiting."""
        waited = False
        while True:
            with writing(self.folder):
                descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                taken = try_lock(descriptor) is False
                if taken:
                    if waiting is not None and not waited:
                        waiting(_owner(path))
                    waited = True
                    wait_for(descriptor)
                if same_file(descriptor, path):
                    return descriptor, waited
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _claimed(path: Path) -> frozenset[str] | None:
    """What a claim needs; None if its process is gone."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if try_lock(descriptor):
            if same_file(descriptor, path):
                path.unlink(missing_ok=True)
            return None
        # Where there are no locks nobody can be known to be dead.
        for _ in range(_NUM_LOOKS):
            needs = _read(path).get("needs")
            if isinstance(needs, list):
                return frozenset(map(str, needs))
            time.sleep(_PAUSE)  # it is just being written
        return frozenset()
    finally:
        os.close(descriptor)


def _owner(path: Path) -> str:
    number = _read(path).get("process")
    return f"process {number}" if isinstance(number, int) else "another process"


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            said = canonical.loads(file.read(_MAX_BYTES))
    except (OSError, IntegrityError):
        return {}  # being written, or gone
    return dict(said) if isinstance(said, dict) else {}


def _write(descriptor: int, said: dict[str, object]) -> None:
    os.truncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(
        descriptor, "wb", closefd=False
    ) as file:  # which writes on where the system wrote a part
        file.write(canonical.dumps(said))
