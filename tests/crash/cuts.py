"""All the states in which a power cut could leave the disk of a recorded run, looked at one by one in memory."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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


def cuts(reference: Reference, num_chosen: int, seed: int) -> tuple[Seen, list[Cut]]:
    """Look at all; also a choice of them, spread over the run, to run again from."""
    seen, known = Seen(), set[int]()
    final = _final(reference)
    promised: dict[str, Tree] = {}
    accepted = _Accepted(final)
    draw = random.Random(seed)
    kept: list[Cut] = []
    for at, disk in _states(reference):
        promised |= _promised(reference, at, final)
        for names, data in _variants(draw):
            tree = disk.tree(names, data, seed)
            mark = _mark(tree)
            if mark in known:
                continue
            known.add(mark)
            cut = Cut(at, names, data, tree)
            wrong = [*_children(tree, final, promised), *_output(tree, reference, final)]
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
    tree = disk.tree()
    children = {name: part(tree, f"store/models/{name}") for name in reference.children}
    return _Final(children, checkpoints, (part(reference.before, "output"), part(tree, "output")))


def _promised(reference: Reference, at: int, final: _Final) -> dict[str, Tree]:
    """The children that the run went on from: their folder was synced after they had appeared."""
    operation = reference.log[at - 1]
    done = operation.kind == "fsync" and operation.path == "store/models"
    if not done and at < len(reference.log):
        return {}
    appeared = {
        each.other.rpartition("/")[2]
        for each in reference.log[:at]
        if each.kind == "rename" and each.other.startswith("store/models/")
    }
    return {name: final.children[name] for name in appeared}


def _children(tree: Tree, final: _Final, promised: Mapping[str, Tree]) -> list[str]:
    names = {path.split("/")[2] for path in tree if path.startswith("store/models/")}
    problems = [
        f"child {name[:12]} is not whole"
        for name in sorted(names)
        if part(tree, f"store/models/{name}") != final.children.get(name)
    ]
    return problems + [f"child {name[:12]} is gone" for name in sorted(promised.keys() - names)]


def _output(tree: Tree, reference: Reference, final: _Final) -> list[str]:
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
