"""What two model folders say about themselves, beside each other: record, card and configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, ReuseError
from reuselib.forensics.declared import declared_parents, read_config
from reuselib.forensics.growth import recorded_change
from reuselib.forensics.settings import settings_that_matter
from reuselib.lineage.licence import carded_licence, licence_of
from reuselib.lineage.manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from reuselib.adapter import Json

_CONFIG = (
    "model_type",
    "architectures",
    "num_labels",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
)


@dataclass(frozen=True)
class Field:
    """One thing that both could say; None where one does not."""

    name: str
    """Such as `recipe.fit.epochs` or `licence`."""
    one: Json
    other: Json


def read_record(folder: Path) -> tuple[Manifest | None, str]:
    """A folder's manifest and, if it has none that can be read, why."""
    if not (folder / MANIFEST).exists():
        return None, ""
    try:
        return Manifest.read(folder), ""
    except IntegrityError as error:
        return None, error.what
    except ReuseError:
        return None, f"{MANIFEST} cannot be read"


def differing_fields(one: Path, other: Path) -> tuple[Field, ...]:
    """What they say otherwise, by name; what neither says, or both alike, is left out."""
    mine, theirs = dict(_said(one)), dict(_said(other))
    names = [*mine, *(name for name in theirs if name not in mine)]
    return tuple(
        Field(name, mine.get(name), theirs.get(name))
        for name in names
        if mine.get(name) != theirs.get(name)
    )


def _said(folder: Path) -> Iterator[tuple[str, Json]]:
    manifest, _ = read_record(folder)
    if manifest is not None:
        yield from _recorded(manifest, folder)
    elif parents := declared_parents(folder):
        yield "parents", [each.name for each in parents]
    terms = licence_of(manifest, folder) if manifest else carded_licence(folder)
    if terms is not None:
        yield "licence", terms.name
    config = read_config(folder, "config.json")
    for name in _CONFIG:
        if name in config:
            yield f"config.{name}", config[name]


def _recorded(manifest: Manifest, folder: Path) -> Iterator[tuple[str, Json]]:
    definition = manifest.definition
    yield "relation", definition.relation
    yield "adapter", definition.adapter
    for name, value in settings_that_matter(definition.adapter, definition.recipe).items():
        yield f"recipe.{name}", value
    yield "parents", [parent.digests.dir_hash for parent in manifest.parents]
    yield from _flat("task", definition.task or {})
    for each in definition.dependencies:
        if each.role == "dataset":
            yield "data", each.uri
            yield "data.rowsHash1", each.digest.get("rowsHash1")
    if definition.seed is not None:
        yield "seed", definition.seed
    if change := recorded_change(manifest, folder):
        yield f"metric.{change.metric}", change.after


def _flat(name: str, values: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(f"{name}.{key}", value)
        else:
            yield f"{name}.{key}", value
