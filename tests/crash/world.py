"""A tiny recipe of four steps, another that shares two of them, and what a command makes of a disk undisturbed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crash.disks import Disk, Tree, part, read_tree
from crash.writes import Operation
from reuselib.lineage.manifest import Manifest

_TOP = """\
base: {source: ../base}
task: text_classification
data: {source: ../train.jsonl, test: ../test.jsonl}
steps:
"""
_SHARED = """\
  - lora: {r: 2, fit: {epochs: 3, batch_size: 16, learning_rate: 1.0e-2}}
  - merge
"""
RECIPE = f"""\
{_TOP}{_SHARED}\
  - prune: {{ffn: 0.5}}
  - distill: {{losses: {{task: 0.5, logits: 0.5}}, fit: {{epochs: 2, batch_size: 16, learning_rate: 1.0e-3}}}}
"""
OTHER = f"""\
{_TOP}{_SHARED}\
  - sparsify: {{sparsity: 0.5}}
"""
"""Its first two children are those of `RECIPE`; `gc` packs them with the third one."""
OLD = f"""\
{_TOP}\
  - sparsify: {{sparsity: 0.25}}
"""
"""Makes the model that lies where the output goes."""
LIMIT = "200kB"
"""Of the store: some of five children go."""


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

    def prepare(self, start: Path | None = None) -> None:
        """Put the recipes there, and what the disk holds at the start."""
        self.folder.mkdir(parents=True)
        for name, recipe in (("recipe", RECIPE), ("other", OTHER), ("old", OLD)):
            (self.folder / f"{name}.yaml").write_text(recipe, encoding="utf-8")
        if start is None:
            self.disk.mkdir()
        else:
            shutil.copytree(start, self.disk)

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
    def other_output(self) -> Path:
        return self.disk / "other"

    def command(self, name: str) -> list[str]:
        """For `reuselib`: `gc`, `limit` (which removes what may go), or `run` for `RECIPE`, `other` or `old`."""
        store = ["--store", str(self.store)]
        if name in ("gc", "limit"):
            limit = ["--limit", LIMIT] if name == "limit" else []
            return ["gc", "--idle", "0", *limit, *store]
        recipe = self.folder / ("recipe.yaml" if name == "run" else f"{name}.yaml")
        output = self.other_output if name == "other" else self.output
        return ["run", str(recipe), *store, "--output", str(output), "--overwrite"]


@dataclass(frozen=True)
class Reference:
    """What an undisturbed command makes of a disk."""

    children: dict[str, str]
    """`dirHash` by derivation id: of all that are there in the end."""
    present: frozenset[str]
    """The children that are there when it begins, and at every moment from then on."""
    last: str
    """`dirHash` of what goes to the output of `RECIPE`."""
    old: str
    """That of the model that was there before."""
    seconds: float
    before: Tree
    """What was on the disk when it began."""
    log: Sequence[Operation]
    checkpoints: dict[str, set[str]]
    """Digests of the tensors of every checkpoint that it wrote, by `<derivation id>/<name>`."""
    other: str = ""
    """`dirHash` of what goes to the output of `OTHER`."""

    @classmethod
    def of(
        cls, disk: Path, start: Path, hashes: tuple[str, str], seconds: float, log: list[Operation]
    ) -> Reference:
        """Of a command that is done and was recorded, on a disk that was a copy of `start`; `hashes`: `last` and `old`.

        Raises:
            AssertionError: the recording is not what happened: something wrote unseen.
        """
        before = read_tree(start)
        checkpoints: dict[str, set[str]] = {}
        played = Disk(before)
        for each in log:
            played.play(each)
            if each.kind == "rename" and re.match("store/checkpoints/[^/]+/[^/]+$", each.other):
                digest = tensors_digest(part(played.tree(), each.other))
                checkpoints.setdefault(each.other.removeprefix("store/checkpoints/"), set()).add(
                    digest
                )
        expected, real = played.tree(), read_tree(disk)
        odd = [
            path
            for path in expected.keys() | real.keys()
            if expected.get(path, "") != real.get(path, "")
        ]
        assert not odd, f"written unseen: {odd}"
        found = children_in(disk / "store")
        present = frozenset(children_in(start / "store"))
        return cls(found, present, *hashes, seconds, before, log, checkpoints)


def children_in(store: Path) -> dict[str, str]:
    """`dirHash` by derivation id, of plain children and packed ones, by what they say of themselves."""
    records = [*store.glob("packed/*/files"), *store.glob("models/*")]
    return {
        (each.parent if each.name == "files" else each).name: Manifest.read(each).digests.dir_hash
        for each in records
    }


def tensors_digest(tree: Tree) -> str:
    """Of a checkpoint."""
    digest = hashlib.sha256()
    for path, content in sorted(tree.items()):
        if path.endswith(".safetensors") and content is not None:
            digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()
