"""A tiny recipe of four steps, what it makes when nobody disturbs it, and whether a store is as it must be."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from crash.disks import Disk, Tree, part, read_tree
from crash.writes import Operation
from reuselib.errors import ReuseError
from reuselib.lineage.checkpoints import read
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.verify import verify

RECIPE = """\
base: {source: ../base}
task: text_classification
data: {source: ../train.jsonl, test: ../test.jsonl}
steps:
  - lora: {r: 2, fit: {epochs: 3, batch_size: 16, learning_rate: 1.0e-2}}
  - merge
  - prune: {ffn: 0.5}
  - distill: {losses: {task: 0.5, logits: 0.5}, fit: {epochs: 2, batch_size: 16, learning_rate: 1.0e-3}}
"""
OLD = """\
base: {source: ../base}
task: text_classification
data: {source: ../train.jsonl, test: ../test.jsonl}
steps:
  - sparsify: {sparsity: 0.25}
"""
"""Makes the model that lies where the output goes."""


def build(folder: Path) -> None:
    """Base and rows, which all runs read; uses torch."""
    from reuselib.testing.tiny import tiny_bert, tiny_rows

    tiny_bert(folder / "base")
    for name, number, seed in (("train", 32, 0), ("test", 8, 1)):
        rows = "".join(f"{json.dumps(row)}\n" for row in tiny_rows(number, seed=seed))
        (folder / f"{name}.jsonl").write_text(rows, encoding="utf-8")


@dataclass(frozen=True)
class Place:
    """Where one run works: its store and its output, and nothing else."""

    folder: Path

    def prepare(self, old: Path | None = None, recipe: str = RECIPE) -> None:
        """Put the recipe there, and an older model where the output goes."""
        self.folder.mkdir(parents=True)
        self.recipe.write_text(recipe, encoding="utf-8")
        self.disk.mkdir()
        if old is not None:
            shutil.copytree(old, self.output)

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def disk(self) -> Path:
        """What is watched, and lost when the power is cut."""
        return self.folder / "disk"

    @property
    def store(self) -> Path:
        return self.disk / "store"

    @property
    def output(self) -> Path:
        return self.disk / "output"

    @property
    def command(self) -> list[str]:
        """What makes the model, for `reuselib`."""
        where = ["--store", str(self.store), "--output", str(self.output), "--overwrite"]
        return ["run", str(self.recipe), *where]


@dataclass
class Reference:
    """What an undisturbed run makes."""

    children: dict[str, str]
    """`dirHash` by derivation id."""
    last: str
    """`dirHash` of what goes to the output."""
    old: str
    """That of the model that was there before."""
    seconds: float
    before: Tree
    """What was on the disk when it began."""
    log: list[Operation]
    checkpoints: dict[str, set[str]]
    """Digests of the tensors of every checkpoint that it wrote, by `<derivation id>/<name>`."""

    @classmethod
    def of(cls, place: Place, old: Path, seconds: float, log: list[Operation]) -> Reference:
        """Of a run that is done and was recorded; `old` lay where its output went.

        Raises:
            AssertionError: the recording is not what happened: something wrote unseen.
        """
        before = {"output": None} | {
            f"output/{path}": data for path, data in read_tree(old).items()
        }
        checkpoints: dict[str, set[str]] = {}
        disk = Disk(before)
        for each in log:
            disk.play(each)
            if each.kind == "rename" and re.match("store/checkpoints/[^/]+/[^/]+$", each.other):
                digest = _tensors(part(disk.tree(), each.other))
                checkpoints.setdefault(each.other.removeprefix("store/checkpoints/"), set()).add(
                    digest
                )
        played, real = disk.tree(), read_tree(place.disk)
        odd = [
            path
            for path in played.keys() | real.keys()
            if played.get(path, "") != real.get(path, "")
        ]
        assert not odd, f"written unseen: {odd}"
        found = {
            folder.name: Manifest.read(folder).digests.dir_hash
            for folder in (place.store / "models").iterdir()
        }
        last = Manifest.read(place.output).digests.dir_hash
        former = Manifest.read(old).digests.dir_hash
        return cls(found, last, former, seconds, before, log, checkpoints)


def faults(place: Place, reference: Reference, *, finished: bool = False) -> list[str]:
    """What is wrong with store and output at any moment; with `finished` also what a run must leave."""
    problems = [*_children(place, reference), *_output(place, reference, finished=finished)]
    if finished:
        there = {path.name for path in (place.store / "models").iterdir()}
        problems += [f"child {name[:12]} is missing" for name in reference.children.keys() - there]
        rests = [*(place.store / "tmp").iterdir(), *(place.store / "checkpoints").glob("*/*")]
        rests += [path for path in place.disk.iterdir() if path.name.startswith(".")]
        problems += [f"{path.relative_to(place.disk)} was left behind" for path in rests]
    return problems


def _children(place: Place, reference: Reference) -> list[str]:
    problems: list[str] = []
    for folder in sorted((place.store / "models").glob("*")):
        if not (folder / MANIFEST).is_file():
            problems.append(f"child {folder.name[:12]} has no manifest")
        elif (made := _whole(folder)) is None:
            problems.append(f"child {folder.name[:12]} is damaged")
        elif made != reference.children.get(folder.name):
            problems.append(f"child {folder.name[:12]} is another one")
    return problems


def _output(place: Place, reference: Reference, *, finished: bool) -> list[str]:
    if not place.output.exists():
        if finished:
            return ["the output is missing"]
        moved = any(_whole(path) == reference.old for path in place.disk.glob(".output.*/old"))
        return [] if moved else ["the old output is lost"]
    made = _whole(place.output)
    if finished:
        return [] if made == reference.last else ["the output is not the child"]
    return [] if made in (reference.last, reference.old) else ["the output is neither old nor new"]


def _whole(folder: Path) -> str | None:
    """The `dirHash` of a model that is there to its last byte."""
    try:
        return Manifest.read(folder).digests.dir_hash if verify(folder).ok else None
    except (ReuseError, OSError):
        return None


def corrupt_checkpoints(place: Place, reference: Reference) -> list[str]:
    """Those that count as valid, but do not hold what an undisturbed training had at that step."""
    found: list[str] = []
    for folder in sorted((place.store / "checkpoints").glob("*/*")):
        name = f"{folder.parent.name}/{folder.name}"
        try:
            read(folder)
        except (ReuseError, OSError):
            continue
        if _tensors(read_tree(folder)) not in reference.checkpoints.get(name, ()):
            found.append(
                f"checkpoint {folder.name} of {folder.parent.name[:12]} is corrupt, but accepted"
            )
    return found


def _tensors(tree: Tree) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(tree.items()):
        if path.endswith(".safetensors") and content is not None:
            digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()
