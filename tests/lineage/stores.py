"""A store filled with small children that were made from one another, whose weights are partly the same."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from reuselib.lineage.chain import history
from reuselib.lineage.definition import Definition, Internal
from reuselib.lineage.descriptors import Parent
from reuselib.lineage.details import Details
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.record import Draft, record
from reuselib.lineage.store import Store

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = 86400


def tensor(seed: int, num_rows: int = 64) -> np.ndarray:
    """16 kB that are the same for the same seed."""
    return np.random.default_rng(seed).standard_normal((num_rows, 64)).astype(np.float32)


def derivation_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass
class Shop:
    """Makes children; each is older than the one made after it."""

    store: Store
    base: Path
    age: float = 100 * DAY
    ids: dict[str, str] = field(default_factory=dict)

    def child(self, name: str, *parents: str, seeds: tuple[int, ...] = (1, 2)) -> str:
        """A child of others, by name, or of the base; gives its id."""
        key = derivation_id(name)
        above = [self.store.record(self.ids[each]) for each in parents] or [self.base]
        past = dict(item for each in above for item in self._history(each).items())
        ties = [
            Parent(f"base-{at}", "base", "file:x", one.digests, one.sha256)
            for at, one in enumerate(map(self._manifest, above))
        ]
        with self.store.fill(key) as folder:
            weights = {f"layer.{at}.weight": tensor(seed) for at, seed in enumerate(seeds)}
            save_file({**weights, "bias": np.ones(3)}, folder / "model.safetensors")
            (folder / "config.json").write_text(f'{{"name": "{name}"}}')
            record(folder, self._draft(name, key, ties), metrics={}, environment={}, ancestors=past)
        folder = self.store.models / key
        self.store.remember_root(Manifest.read(folder).digests.dir_hash, folder)
        self.ids[name] = key
        self.use(name, days=self.age / DAY)
        self.age -= DAY
        return key

    def use(self, name: str, *, days: float) -> None:
        """Let the last use of a child be so many days ago."""
        folder = self.store.models / self.ids[name]
        assert self.store.uses.note(self.ids[name], folder)
        then = time.time() - days * DAY
        os.utime(self.store.uses.folder / self.ids[name], (then, then))

    def content(self, name: str) -> dict[str, bytes]:
        """Every file of a child that can be loaded."""
        folder = self.store.models / self.ids[name]
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def plain(self) -> set[str]:
        """Names of the children that can be loaded as they are."""
        return {name for name, key in self.ids.items() if (self.store.models / key).is_dir()}

    def packed(self) -> set[str]:
        return {name for name, key in self.ids.items() if (self.store.packed / key).is_dir()}

    def _manifest(self, folder: Path) -> Manifest:
        if folder == self.base:
            return Manifest.pin("base", take_inventory(folder).digests, source="./base")
        return Manifest.read(folder)

    def _history(self, folder: Path) -> dict[str, bytes]:
        one = self._manifest(folder)
        return {one.sha256: one.payload()} if folder == self.base else history(folder)

    def _draft(self, name: str, key: str, ties: list[Parent]) -> Draft:
        definition = Definition(
            relation="finetune",
            adapter="finetune",
            task={"text_classification": {}},
            seed=0,
            internal=Internal(derivation_id=key),
            dependencies=tuple(entry for tie in ties for entry in tie.descriptors()),
        )
        return Draft(name, definition, replace(Details(), started=NOON, finished=NOON))
