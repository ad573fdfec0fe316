"""What a store holds, how much room it takes, and what needs what: looked at without changing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reuselib.errors import ReuseError
from reuselib.lineage.chain import history, walk
from reuselib.lineage.headers import headers
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.packed import MIN_PIECE, Contents
from reuselib.lineage.record import TENSORS
from reuselib.lineage.rows import parse_rows
from reuselib.lineage.store import Store

CACHES = ("checkpoints", "lessons", "activations", "states")
"""Rooms whose contents only save work: the first of them goes first."""
_MAX_ROWS = 2**30


@dataclass(frozen=True)
class Holding:
    """A child, or a base that was kept."""

    name: str
    """Derivation id of a child, `dirHash` of a base."""
    digest: str
    """Its `dirHash`."""
    used: float
    """When it was last used, in seconds since 1970."""
    is_root: bool = False
    needs: frozenset[str] = frozenset()
    """Derivation ids and `dirHash`es of all that it was made from."""
    plain_bytes: int = 0
    """Of the folder that can be loaded; 0 if there is none."""
    packed_bytes: int = 0
    """Of the packed form, without shared tensors; 0 if there is none."""
    tensors: Mapping[str, int] = field(default_factory=dict[str, int])
    """Size by digest of the tensors that are shared when it is packed."""
    large_bytes: int = 0
    """What those take in the weight files; more than their sum where a model holds one twice."""

    @property
    def num_bytes(self) -> int:
        """Without shared tensors."""
        return self.plain_bytes + self.packed_bytes

    @property
    def what(self) -> str:
        """In a word."""
        return "base" if self.is_root else "child"

    def is_needed_by(self, other: Holding) -> bool:
        """Whether another one was made from it, or from one with the same bytes."""
        return other is not self and bool({self.name, self.digest} & other.needs)


@dataclass(frozen=True)
class Cache:
    """Something that can be made again."""

    room: str
    """One of `CACHES`."""
    name: str
    place: Path
    num_bytes: int
    used: float


@dataclass(frozen=True)
class Survey:
    """A store at a moment."""

    holdings: tuple[Holding, ...]
    caches: tuple[Cache, ...]
    unreadable: Mapping[str, str]
    """Children whose record cannot be read, by the name of their folder, with the reason."""
    stray: Mapping[str, int]
    """Size of each shared tensor that nobody names, by digest."""
    num_bytes: int
    """Of everything."""


def survey(store: Store) -> Survey:
    """Look at everything. Weights are not read: what they are is taken from the records; who packs them checks it.

    Raises:
        StoreError: the list of a packed child is damaged, so that nobody can say which tensors are needed.
    """
    holdings: list[Holding] = []
    unreadable: dict[str, str] = {}
    named: set[str] = set()
    for name, record in store.records().items():
        packed = store.packed / name
        contents = Contents.read(packed) if packed.is_dir() else None
        named |= contents.tensors.keys() if contents else set()
        try:
            holdings.append(_child(store, name, record, contents))
        except (ReuseError, OSError) as error:
            unreadable[name] = error.what if isinstance(error, ReuseError) else str(error)
    roots = tuple(_roots(store))
    shared = {path.name: folder_bytes(path) for path in sorted(store.tensors.glob("*/*"))}
    stray = {name: size for name, size in shared.items() if name not in named}
    caches = tuple(_caches(store))
    num_bytes = sum(map(folder_bytes, (store.models, store.packed, store.tensors)))
    num_bytes += sum(each.num_bytes for each in (*roots, *caches))
    return Survey((*holdings, *roots), caches, unreadable, stray, num_bytes)


def folder_bytes(folder: Path) -> int:
    """Size of a file, or of all files in a folder; what vanishes meanwhile has none."""
    total = folder.stat().st_size if folder.is_file() else 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total


def _child(store: Store, name: str, record: Path, contents: Contents | None) -> Holding:
    manifest = Manifest.read(record)
    plain = store.models / name
    tensors, large = (contents.tensors, 0) if contents else _tensors(plain)
    return Holding(
        name,
        manifest.digests.dir_hash,
        store.uses.last(name, plain if plain.is_dir() else store.packed / name),
        needs=_needs(manifest, record),
        plain_bytes=folder_bytes(plain),
        packed_bytes=folder_bytes(store.packed / name),
        tensors=tensors,
        large_bytes=large,
    )


def _needs(manifest: Manifest, record: Path) -> frozenset[str]:
    found = walk(manifest, history(record))
    names = {each for one in found.manifests.values() for each in _names(one)}
    return frozenset(names | {each.digests.dir_hash for each in found.missing})


def _names(manifest: Manifest) -> Iterator[str]:
    yield manifest.digests.dir_hash
    if manifest.derivation_id:
        yield manifest.derivation_id


def _tensors(folder: Path) -> tuple[dict[str, int], int]:
    """What a child would share if it were packed, by its record."""
    with (folder / TENSORS).open("rb") as file:
        rows = parse_rows(file.read(_MAX_ROWS), path=TENSORS)
    infos = headers(folder)
    sizes = [
        (row.sha256, infos[row.name].end - infos[row.name].start)
        for row in rows
        if row.name in infos
    ]
    large = [(digest, size) for digest, size in sizes if size >= MIN_PIECE]
    return dict(large), sum(size for _, size in large)


def _roots(store: Store) -> Iterator[Holding]:
    for path in sorted(store.roots.glob("*")):
        if path.is_dir():
            used = store.uses.last(path.name, path)
            yield Holding(path.name, path.name, used, is_root=True, plain_bytes=folder_bytes(path))


def _caches(store: Store) -> Iterator[Cache]:
    for room in CACHES:
        for path in sorted((store.path / room).glob("*")):
            if path.is_dir():
                used = max(
                    store.uses.last(path.name, path) if room in CACHES[1:3] else 0.0, _changed(path)
                )
                yield Cache(room, path.name, path, folder_bytes(path), used)


def _changed(folder: Path) -> float:
    """When something was last added to a folder."""
    try:
        return max(each.stat().st_mtime for each in (folder, *folder.iterdir()))
    except OSError:
        return 0.0
