"""All the states in which a power cut could leave the disk of a recorded run, looked at one by one in memory."""

from __future__ import annotations

import hashlib
import json
import random
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from crash.disks import NUM_EXTREMES, VARIANTS, Disk, Tree, part, write_tree
from crash.world import Reference
from reuselib.errors import ReuseError
from reuselib.lineage.checkpoints import read


@dataclass(frozen=True)
class Cut:
    """One such state."""

    at: int
    """Operations that were done."""
    names: str
    """What became of names that were not synced."""
    data: str
    """What became of data that were not."""
    tree: Tree = field(repr=False)

    def __str__(self) -> str:
        return f"power cut after {self.at} operations, names {self.names}, data {self.data}"


@dataclass
class Seen:
    """What there was to see."""

    num_states: int = 0
    """That differ from each other."""
    lost: int = 0
    corrupt: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def cuts(
    reference: Reference, num_chosen: int, seed: int, begin: int = 0
) -> tuple[Seen, list[Cut]]:
    """Look at all after so many operations; also a choice of them, spread over the run, to run again from."""
    seen, known = Seen(), set[int]()
    final = _final(reference)
    promised = set(reference.present)
    accepted = _Accepted(final)
    draw = random.Random(seed)
    kept: list[Cut] = []
    for at, disk in _states(reference):
        promised |= _promised(reference, at)
        if at <= begin:
            continue
        for names, data in _variants(draw):
            tree = disk.tree(names, data, seed)
            mark = _mark(tree)
            if mark in known:
                continue
            known.add(mark)
            cut = Cut(at, names, data, tree)
            wrong = [*_children(tree, final, promised), *_output(tree, final)]
            corrupt = accepted.among(tree)
            seen.lost += sum(each.startswith("child ") for each in wrong)
            seen.corrupt += len(corrupt)
            seen.problems += [f"{cut}: {each}" for each in (*wrong, *corrupt)]
            _sample(kept, cut, len(known), num_chosen, draw)
    seen.num_states = len(known)
    return seen, sorted(kept, key=lambda each: each.at)


def _variants(draw: random.Random) -> list[tuple[str, str]]:
    """The extremes, and one of what lies between."""
    return [*VARIANTS[:NUM_EXTREMES], draw.choice(VARIANTS[NUM_EXTREMES:])]


def _sample(kept: list[Cut], cut: Cut, number: int, size: int, draw: random.Random) -> None:
    """Each is kept with the same chance, without keeping all of them in memory."""
    if len(kept) < size:
        kept.append(cut)
    elif (at := draw.randrange(number)) < size:
        kept[at] = cut


def _states(reference: Reference) -> Iterator[tuple[int, Disk]]:
    disk = Disk(reference.before)
    for at, operation in enumerate(reference.log):
        disk.play(operation)
        yield at + 1, disk


@dataclass(frozen=True)
class _Final:
    """Everything that ever appeared whole, as it must look."""

    children: Mapping[str, Tree]
    packed: Mapping[str, Tree]
    checkpoints: Mapping[str, list[Tree]]
    outputs: tuple[Tree, Tree]


def _final(reference: Reference) -> _Final:
    disk, checkpoints = Disk(reference.before), dict[str, list[Tree]]()
    for operation in reference.log:
        disk.play(operation)
        if operation.kind == "rename" and re.match(
            "store/checkpoints/[^/]+/[^/]+$", operation.other
        ):
            checkpoints.setdefault(operation.other, []).append(part(disk.tree(), operation.other))
    before, after = reference.before, disk.tree()
    return _Final(
        _folders(before, "store/models") | _folders(after, "store/models"),
        _folders(before, "store/packed") | _folders(after, "store/packed"),
        checkpoints,
        (part(before, "output"), part(after, "output")),
    )


def _promised(reference: Reference, at: int) -> set[str]:
    """The children that the run went on from: their folder was synced after they had appeared."""
    operation = reference.log[at - 1]
    done = operation.kind == "fsync" and operation.path == "store/models"
    if not done and at < len(reference.log):
        return set()
    return {
        each.other.rpartition("/")[2]
        for each in reference.log[:at]
        if each.kind == "rename" and re.match("store/models/[^/]+$", each.other)
    }


def _children(tree: Tree, final: _Final, promised: Collection[str]) -> list[str]:
    plain, packed = _folders(tree, "store/models"), _folders(tree, "store/packed")
    problems = [
        f"child {name[:12]} is not whole"
        for name in sorted(plain)
        if plain[name] != final.children.get(name)
    ]
    problems += [
        f"child {name[:12]} is not whole in its packed form"
        for name in sorted(packed)
        if packed[name] != final.packed.get(name) or not _has_tensors(tree, packed[name])
    ]
    gone = set(promised) - plain.keys() - packed.keys()
    return problems + [f"child {name[:12]} is gone" for name in sorted(gone)]


def _has_tensors(tree: Tree, packed: Tree) -> bool:
    """Whether all that a packed child shares is there; a tensor is named by the digest of its bytes."""
    pieces = json.loads(packed["pieces.json"] or b"")["weights"].values()
    digests = {digest for each in pieces for _, digest in each if digest}
    contents = {each: tree.get(f"store/tensors/{each[:2]}/{each}") or b"" for each in digests}
    return all(_digest(content) == digest for digest, content in contents.items())


@cache
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _folders(tree: Tree, room: str) -> dict[str, Tree]:
    """What lies in each folder of a room of the store."""
    start, found = f"{room}/", dict[str, Tree]()
    for path, content in tree.items():
        if path.startswith(start):
            name, _, rest = path.removeprefix(start).partition("/")
            folder = found.setdefault(name, {})
            if rest:
                folder[rest] = content
    return found


def _output(tree: Tree, final: _Final) -> list[str]:
    there = part(tree, "output")
    at_end = "output" in tree
    return [] if at_end and there in final.outputs else ["the output is neither old nor new"]


@dataclass
class _Accepted:
    """Whether checkpoints are accepted that never were."""

    final: _Final
    known: dict[int, bool] = field(default_factory=dict)

    def among(self, tree: Tree) -> list[str]:
        places = {
            "/".join(path.split("/")[:4])
            for path in tree
            if path.startswith("store/checkpoints/") and path.count("/") >= 3
        }
        return [
            f"{place} is corrupt, but accepted"
            for place in sorted(places)
            if self._is_wrong(place, part(tree, place))
        ]

    def _is_wrong(self, place: str, tree: Tree) -> bool:
        if tree in self.final.checkpoints.get(place, []):
            return False
        mark = _mark(tree)
        if mark not in self.known:
            with tempfile.TemporaryDirectory() as folder:
                write_tree(tree, Path(folder))
                try:
                    read(Path(folder))
                    self.known[mark] = True
                except (ReuseError, OSError):
                    self.known[mark] = False
        return self.known[mark]


def _mark(tree: Tree) -> int:
    """The same for equal trees, in this process. Bytes remember their hash, so nothing is read twice."""
    return hash(frozenset(tree.items()))
