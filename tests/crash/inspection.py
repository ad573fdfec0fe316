"""Whether a store and an output are as they must be, after whatever happened."""

from __future__ import annotations

from pathlib import Path

from crash.disks import read_tree
from crash.world import Place, Reference, tensors_digest
from reuselib.errors import ReuseError
from reuselib.lineage.checkpoints import read
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.packed import FILES, read_back, unnamed
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify


def faults(place: Place, reference: Reference, *, finished: bool = False) -> list[str]:
    """What is wrong with store and output at any moment; with `finished` also what a run must leave."""
    problems = [*_children(place, reference), *_output(place, reference, finished=finished)]
    there = _plain(place) | _packed(place)
    wanted = reference.children.keys() if finished else reference.present
    problems += [f"child {name[:12]} is missing" for name in sorted(wanted - there)]
    if finished:
        rests = [*(place.store / "tmp").iterdir(), *(place.store / "checkpoints").glob("*/*")]
        rests += [path for path in place.disk.iterdir() if path.name.startswith(".")]
        if not problems:  # which a damaged list of a packed child would be
            rests += unnamed(place.store / "packed", place.store / "tensors")
        problems += [f"{path.relative_to(place.disk)} was left behind" for path in rests]
    return problems


def unpacked(place: Place, reference: Reference) -> list[str]:
    """What is wrong with children when each of them is asked for, which unpacks it."""
    store, problems = Store(place.store, quiet=True), list[str]()
    for name, expected in reference.children.items():
        try:
            folder = store.find(name)
        except ReuseError as error:
            problems.append(f"child {name[:12]} cannot be had: {error.what}")
            continue
        if folder is None or whole(folder) != expected:
            problems.append(f"child {name[:12]} is not what it was when it is unpacked")
    return problems


def corrupt_checkpoints(place: Place, reference: Reference) -> list[str]:
    """Those that count as valid, but do not hold what an undisturbed training had at that step."""
    found: list[str] = []
    for folder in sorted((place.store / "checkpoints").glob("*/*")):
        name = f"{folder.parent.name}/{folder.name}"
        try:
            read(folder)
        except (ReuseError, OSError):
            continue
        if tensors_digest(read_tree(folder)) not in reference.checkpoints.get(name, ()):
            found.append(
                f"checkpoint {folder.name} of {folder.parent.name[:12]} is corrupt, but accepted"
            )
    return found


def whole(folder: Path) -> str | None:
    """The `dirHash` of a model that is there to its last byte."""
    try:
        return Manifest.read(folder).digests.dir_hash if verify(folder).ok else None
    except (ReuseError, OSError):
        return None


def _children(place: Place, reference: Reference) -> list[str]:
    problems: list[str] = []
    for name in sorted(_plain(place)):
        folder = place.store / "models" / name
        if not (folder / MANIFEST).is_file():
            problems.append(f"child {name[:12]} has no manifest")
        elif (made := whole(folder)) is None:
            problems.append(f"child {name[:12]} is damaged")
        elif made != reference.children.get(name):
            problems.append(f"child {name[:12]} is another one")
    for name in sorted(_packed(place)):
        if _whole_packed(place, name) != reference.children.get(name, ""):
            problems.append(f"child {name[:12]} is damaged in its packed form")
    return problems


def _plain(place: Place) -> set[str]:
    return {path.name for path in (place.store / "models").glob("*")}


def _packed(place: Place) -> set[str]:
    return {path.name for path in (place.store / "packed").glob("*")}


def _whole_packed(place: Place, name: str) -> str | None:
    """The `dirHash` of a packed child of which every file comes out as it was."""
    folder = place.store / "packed" / name
    try:
        read_back(folder, place.store / "tensors")
        return Manifest.read(folder / FILES).digests.dir_hash
    except (ReuseError, OSError):
        return None


def _output(place: Place, reference: Reference, *, finished: bool) -> list[str]:
    if not place.output.exists():
        if finished:
            return ["the output is missing"]
        moved = any(whole(path) == reference.old for path in place.disk.glob(".output.*/old"))
        return [] if moved else ["the old output is lost"]
    made = whole(place.output)
    if finished:
        return [] if made == reference.last else ["the output is not the child"]
    return [] if made in (reference.last, reference.old) else ["the output is neither old nor new"]
