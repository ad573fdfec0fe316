"""What two models have in common and where they differ. Needs no manifest of either."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reuselib.errors import IntegrityError
from reuselib.forensics.changes import TensorChange, changes
from reuselib.forensics.fields import Field, differing_fields, read_record
from reuselib.forensics.likeness import Evidence, Relation
from reuselib.forensics.naming import names_of
from reuselib.forensics.relation import relate
from reuselib.forensics.view import View
from reuselib.lineage.chain import read_ancestors, walk
from reuselib.lineage.digest import file_sha256

if TYPE_CHECKING:
    from reuselib.adapter import Json

_CARD = "README.md"
_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".gguf", ".onnx", ".msgpack", ".npz", ".pkl")


@dataclass(frozen=True)
class FileChange:
    """One file by relative path."""

    path: str
    kind: Literal["same", "changed", "added", "removed"]


@dataclass(frozen=True)
class Difference:
    """Two models beside each other: A is the first, B the second."""

    names: tuple[str, str]
    """What to call them: folders by their name, children of a store as their manifest says."""
    files: tuple[FileChange, ...]
    tensors: tuple[TensorChange, ...]
    fields: tuple[Field, ...]
    """What records, cards and configurations say otherwise."""
    relation: Relation
    """What it looks like, from the weights."""
    recorded: str
    """What a record says about the two, if one says anything."""
    prefixes: tuple[str, str]
    """What stands in front of names that are otherwise the same."""
    problems: tuple[str, ...]
    """Records that are there and cannot be read: what they would say is not among the fields."""
    unchecked: tuple[str, ...]
    """What a reader might believe was compared, and was not."""

    @property
    def counts(self) -> dict[str, int]:
        """Tensors by what became of them."""
        return dict(sorted(Counter(each.kind for each in self.tensors).items()))

    @property
    def same(self) -> bool:
        """Whether every file that belongs to the models is the same."""
        return all(each.kind == "same" or each.path == _CARD for each in self.files)

    def to_json(self) -> dict[str, Json]:
        """As plain JSON; identical tensors are counted only, and what is not finite is null."""
        return {
            "same": self.same,
            "names": list(self.names),
            "relation": asdict(self.relation),
            "recorded": self.recorded,
            "problems": list(self.problems),
            "files": [asdict(each) for each in self.files],
            "counts": dict(self.counts),
            "prefixes": list(self.prefixes),
            "tensors": [_plain(asdict(t)) for t in self.tensors if t.kind != "identical"],
            "fields": [asdict(each) for each in self.fields],
            "unchecked": list(self.unchecked),
        }


def diff(one: Path, other: Path) -> Difference:
    """Compare two model folders: files by digest, weights tensor by tensor, and what is said about them.

    Weights are hashed; a pair whose digests differ is read, one pair at a time and slice by slice.

    Raises:
        SourceError: there is no such folder, or no model in it.
        IntegrityError: a folder or its weights cannot be read safely, as for `verify`.
    """
    views = View.of(one), View.of(other)
    matching, found = changes(*views)
    problems = [
        f"the record of {side} cannot be read: {why}"
        for side, folder in zip("AB", (one, other), strict=True)
        if (why := read_record(folder)[1])
    ]
    first, second = names_of((one, other))
    return Difference(
        names=(first, second),
        files=tuple(_files(*views)),
        tensors=tuple(found),
        fields=differing_fields(one, other),
        relation=relate(Evidence(*views, matching, found)),
        recorded=_recorded(views, (one, other)),
        prefixes=matching.prefixes,
        problems=tuple(problems),
        unchecked=tuple(_unchecked(views)),
    )


def _files(one: View, other: View) -> Iterator[FileChange]:
    before, after = (dict(view.inventory.files) for view in (one, other))
    for files, view in ((before, one), (after, other)):
        if (view.folder / _CARD).is_file():
            files[_CARD] = file_sha256(view.folder / _CARD)
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            yield FileChange(path, "removed")
        elif path not in before:
            yield FileChange(path, "added")
        else:
            yield FileChange(path, "same" if before[path] == after[path] else "changed")


def _recorded(views: tuple[View, View], folders: tuple[Path, Path]) -> str:
    """Whether the record of one names the other, by its digests, among its ancestors."""
    for child, parent, names in ((1, 0, "BA"), (0, 1, "AB")):
        manifest, _ = read_record(folders[child])
        if manifest is None or manifest.digests != views[child].inventory.digests:
            continue
        wanted = views[parent].inventory.digests
        for each in manifest.parents:
            if each.digests == wanted:
                how = f"{manifest.relation} by {manifest.definition.adapter}"
                return f"the record of {names[0]} names {names[1]} as its {each.role}, for {how}"
        try:
            chain = walk(manifest, read_ancestors(folders[child]))
        except IntegrityError:
            continue
        if any(ancestor.digests == wanted for ancestor in chain.manifests.values()):
            return f"the record of {names[0]} names {names[1]} among its ancestors"
    return ""


def _unchecked(views: tuple[View, View]) -> Iterator[str]:
    for side, view in zip("AB", views, strict=True):
        others = [name for name in view.inventory.files if name.lower().endswith(_WEIGHTS)]
        if others:
            yield f"weights in {', '.join(others[:3])} of {side}: compared as bytes only, never opened"
    yield "whether what record and card say is true: `reuselib verify`, `prove` and `audit` look at that"
    yield "how either got its weights: a relation that is inferred can be a coincidence, or staged"


def _plain(value: object) -> Json:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value  # type: ignore[return-value]
