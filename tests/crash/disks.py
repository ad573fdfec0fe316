"""What a disk may hold after the power was cut: a recorded run, played back with what nobody had made it keep lost.

The model is the one of POSIX, which promises little: a file's content is kept once the file was synced, a name once its
folder was; of everything else any part may be there, whatever the order in which it was done. Only a single rename is
taken to be one act. Real file systems promise more, each something else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from crash.writes import Operation

Tree = dict[str, bytes | None]
"""Content by path; None for folders."""

KEPT, LOST = "kept", "lost"
NAMES = (KEPT, LOST, "some")
DATA = (KEPT, LOST, "zeros", "torn")
VARIANTS = (
    (KEPT, LOST),
    (LOST, KEPT),
    (KEPT, "zeros"),
    (KEPT, "torn"),
    (LOST, LOST),
    ("some", "torn"),
    ("some", LOST),
    ("some", KEPT),
)
"""Of names and of data that were not synced."""
NUM_EXTREMES = 2
"""The first are those that file systems are known for."""


@dataclass
class _File:
    writes: list[tuple[int, int, bytes]] = field(default_factory=list)
    """When, where, what."""
    synced: int = -1
    """Everything before that operation is on the disk."""

    _whole: tuple[int, bytes] = (0, b"")
    """The content after so many writes: most files are whole most of the time."""

    def content(self, policy: str, draw: random.Random) -> bytes:
        if policy != KEPT and all(when < self.synced for when, *_ in self.writes):
            policy = KEPT
        if policy == KEPT and self._whole[0] == len(self.writes):
            return self._whole[1]
        data = self._played(policy, draw)
        if policy == KEPT:
            self._whole = (len(self.writes), data)
        return data

    def _played(self, policy: str, draw: random.Random) -> bytes:
        data = bytearray()
        for when, start, piece in self.writes:
            if policy != KEPT and when >= self.synced:
                if policy == LOST or (policy == "torn" and draw.random() < 0.5):
                    continue
                if policy == "zeros":
                    piece = bytes(len(piece))
                elif policy == "torn":
                    piece = piece[: draw.randrange(len(piece) + 1)]
            data.extend(bytes(max(0, start - len(data))))
            data[start : start + len(piece)] = piece
        return bytes(data)


@dataclass
class _Folder:
    entries: dict[str, _File | _Folder] = field(default_factory=dict)


@dataclass
class _Renaming:
    """One change of names: entries of folders set or removed, all or none of them."""

    when: int
    changes: list[tuple[_Folder, str, _File | _Folder | None]]
    kept: bool = False
    """Its folder was synced afterwards."""
    gone: bool = False
    """That where it was taken away was: there it is gone, wherever it may be now."""


class Disk:
    """A recording up to some operation."""

    def __init__(self, before: Tree) -> None:
        """`before`: what was there, and on the disk, when the recording began."""
        self._now = _Folder()
        """As the process saw it."""
        self._renamings: list[_Renaming] = []
        self._count = 0
        for path, content in sorted(before.items()):
            node = _Folder() if content is None else _File([(-1, 0, content)], 0)
            parent, name = self._place(path)
            self._set([(parent, name, node)])
        for each in self._renamings:
            each.kept = True

    def play(self, operation: Operation) -> None:
        """Do an operation."""
        getattr(self, f"_{operation.kind}")(operation)
        self._count += 1

    def tree(self, names: str = KEPT, data: str = KEPT, seed: int = 0) -> Tree:
        """What could be on the disk if the power went now; see `VARIANTS`."""
        draw = random.Random(f"{seed} {names} {data} {self._count}")
        folders: dict[int, dict[str, _File | _Folder]] = {}
        for each in self._renamings:
            done = each.kept or names == KEPT or (names == "some" and draw.random() < 0.5)
            for folder, name, node in each.changes:
                if done or (each.gone and node is None):
                    entries = folders.setdefault(id(folder), {})
                    entries.pop(name, None)
                    if node is not None:
                        entries[name] = node
        found: Tree = {}

        def walk(folder: _Folder, path: PurePosixPath, above: tuple[int, ...]) -> None:
            for name, node in folders.get(id(folder), {}).items():
                place = path / name
                if isinstance(node, _File):
                    found[str(place)] = node.content(data, draw)
                elif id(node) not in above:
                    found[str(place)] = None
                    walk(node, place, (*above, id(node)))

        walk(self._now, PurePosixPath(), ())
        return found

    def _place(self, path: str) -> tuple[_Folder, str]:
        parts = PurePosixPath(path).parts
        folder = self._now
        for part in parts[:-1]:
            inner = folder.entries[part]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder, parts[-1]

    def _node(self, path: str) -> _File | _Folder:
        if path == ".":
            return self._now
        folder, name = self._place(path)
        return folder.entries[name]

    def _set(self, changes: list[tuple[_Folder, str, _File | _Folder | None]]) -> None:
        for folder, name, node in changes:
            folder.entries.pop(name, None)
            if node is not None:
                folder.entries[name] = node
        self._renamings.append(_Renaming(self._count, changes))

    def _create(self, operation: Operation) -> None:
        folder, name = self._place(operation.path)
        there = folder.entries.get(name)
        if isinstance(there, _File):
            # Emptying a file in place: its old content may be gone at once, or still be there.
            there.writes, there._whole = [], (0, b"")
            return
        self._set([(folder, name, _File())])

    def _write(self, operation: Operation) -> None:
        node = self._node(operation.path)
        assert isinstance(node, _File)
        node.writes.append((self._count, operation.start, operation.data))

    def _fsync(self, operation: Operation) -> None:
        node = self._node(operation.path)
        if isinstance(node, _File):
            node.synced = self._count
            return
        for each in self._renamings:
            # a name is kept where it appears; a rename takes it away elsewhere in the same act
            ends = [folder for folder, _, value in each.changes if value is not None]
            each.kept |= any(folder is node for folder in ends or [each.changes[0][0]])
            each.gone |= any(folder is node for folder, _, value in each.changes if value is None)

    def _mkdir(self, operation: Operation) -> None:
        folder, name = self._place(operation.path)
        self._set([(folder, name, _Folder())])

    def _unlink(self, operation: Operation) -> None:
        folder, name = self._place(operation.path)
        self._set([(folder, name, None)])

    _rmdir = _unlink

    def _rename(self, operation: Operation) -> None:
        source, old = self._place(operation.path)
        target, new = self._place(operation.other)
        self._set([(source, old, None), (target, new, source.entries[old])])

    def _exchange(self, operation: Operation) -> None:
        one, first = self._place(operation.path)
        other, second = self._place(operation.other)
        self._set([(one, first, other.entries[second]), (other, second, one.entries[first])])


def read_tree(folder: Path) -> Tree:
    """What a folder holds."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def write_tree(tree: Tree, folder: Path) -> None:
    """Into an empty folder."""
    for path, content in sorted(tree.items()):
        target = folder / path
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def part(tree: Tree, folder: str) -> Tree:
    """What lies in a folder of a tree, under the names that it has there."""
    start = f"{folder}/"
    return {
        path.removeprefix(start): content
        for path, content in tree.items()
        if path.startswith(start)
    }


def played(before: Tree, log: Sequence[Operation], at: int, look: Callable[[Disk], None]) -> Disk:
    """Play a recording up to an operation, and look after each."""
    disk = Disk(before)
    for operation in log[:at]:
        disk.play(operation)
        look(disk)
    return disk
