"""Files of a child besides its weights, held against its parent's: what differs is told, since no proof explains it."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Json
from reuselib.errors import ReuseError
from reuselib.evidence.edge import settled
from reuselib.lineage import canonical
from reuselib.lineage.digest import payload_files

if TYPE_CHECKING:
    from reuselib.evidence.whereabouts import Whereabouts
    from reuselib.lineage.manifest import Manifest

CONFIG = "config.json"
_WEIGHTS = (".safetensors", ".safetensors.index.json")
_OF_LIBRARY = {"transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures"}
"""What transformers writes anew with every model."""
_OF_TASK = {"id2label", "label2id", "problem_type"}
"""What follows from the labels of the recorded task."""
_MAX_LINES = 20
_MAX_BYTES = 1 << 20
"""Of a larger file it is only told that it differs."""


def unlike(manifest: Manifest, folder: Path, sources: Whereabouts) -> list[str]:
    """Where files of a child differ from its parent's, each in a few words: keys of JSON by name, else the file.

    A child that holds an update only is compared in the files that both have.

    Raises:
        SourceError: the parent, or the model whose files it shares, is not at hand.
        IntegrityError: a folder cannot be read safely.
    """
    parent = _whole(manifest, sources)
    theirs = set(payload_files(parent, follow_links=True))
    found: list[str] = []
    for name in payload_files(folder, follow_links=True):
        if name.endswith(_WEIGHTS):
            continue
        if name in theirs:
            found += _differing(name, folder / name, parent / name, manifest)
        elif not settled(manifest).requires:
            found.append(f"{name}: the parent has no such file")
    more = len(found) - _MAX_LINES
    return [*found[:_MAX_LINES], *([f"{more} more such differences"] if more > 0 else [])]


def labels_in_order(manifest: Manifest, folder: Path) -> Iterator[Finding]:
    """A configuration that names the task's labels in another order turns the model's answers round."""
    labels = _labels(manifest)
    config = _object(folder / CONFIG)
    named = config.get("id2label") if config else None
    if not labels or not isinstance(named, dict):
        return
    shown = [str(named.get(str(index))) for index in range(len(named))]
    if sorted(shown) == sorted(labels):
        claim = "config.json names the labels in the order of the task"
        yield Finding(claim, shown == labels, "" if shown == labels else ", ".join(shown)[:200])


def _whole(manifest: Manifest, sources: Whereabouts) -> Path:
    """The parent's folder, or that of the model it is an update of: that has the configuration and the tokenizer."""
    parent = manifest.parents[0]
    while (known := sources.known(parent)) and known.definition.internal:
        if not known.definition.internal.requires:
            break
        parent = known.parents[0]
    return sources.folder(parent)


def _differing(name: str, own: Path, other: Path, manifest: Manifest) -> Iterator[str]:
    if filecmp.cmp(own, other, shallow=False):
        return
    mine, yours = _object(own), _object(other)
    if mine is None or yours is None:
        yield f"{name} differs from the parent's"
        return
    keys = [key for key in sorted({*mine, *yours}) if key not in _OF_LIBRARY]
    for key in keys:
        if key in mine and key in yours and _same(mine[key], yours[key]):
            continue
        if name == CONFIG and key in _OF_TASK and _of_task(mine, manifest):
            continue
        if key not in yours:
            yield f"{name}: {key} is not in the parent's"
        elif key not in mine:
            yield f"{name}: {key} is in the parent's only"
        else:
            yield f"{name}: {key} differs from the parent's"


def _same(one: Json, other: Json) -> bool:
    # 1 and 1.0 and true are one number to Python, and the first two to JSON
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _of_task(config: Mapping[str, Json], manifest: Manifest) -> bool:
    """Whether the labels of a configuration are those that the task names."""
    named = config.get("id2label")
    return isinstance(named, dict) and list(map(str, named.values())) == _labels(manifest)


def _labels(manifest: Manifest) -> list[str]:
    fields = next(iter((manifest.definition.task or {}).values()), None)
    labels = fields.get("labels") if isinstance(fields, dict) else None
    return [str(each) for each in labels] if isinstance(labels, list) else []


def _object(path: Path) -> dict[str, Json] | None:
    """The JSON object in a small file; None if it is none."""
    try:
        if path.suffix != ".json" or path.stat().st_size > _MAX_BYTES:
            return None
        value = canonical.loads(path.read_bytes())
    except (OSError, ValueError, ReuseError):
        return None
    return value if isinstance(value, dict) else None
