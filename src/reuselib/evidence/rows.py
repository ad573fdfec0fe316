"""The rows that a model was measured on, found again from its manifest or from where the caller says they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from reuselib.data import Data, Splits
from reuselib.data.sources import source_kind
from reuselib.errors import SourceError
from reuselib.lineage.manifest import MANIFEST
from reuselib.values.binding import FAILED, Binder
from reuselib.values.document import Document

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.descriptors import Descriptor
    from reuselib.lineage.manifest import Manifest

Given: TypeAlias = "str | Path | Data | Splits | None"
"""A source as a recipe writes it, or the rows themselves; None: where the manifest says."""
_PARTS = ("train", "validation", "test", "holdout")


def rows_of(manifest: Manifest, given: Given = None) -> Splits:
    """The rows of a derivation; whether they are those that were recorded is for the caller to compare.

    Args:
        manifest: of a derived model.
        given: with a source alone, splits and parts are those of the manifest.

    Raises:
        SourceError: they are not at hand.
        DataError: what is there is not what it should be.
    """
    if isinstance(given, Splits):
        return given
    if isinstance(given, Data):
        return given.load()
    recorded = manifest.definition.data
    if given is not None:
        return _data(recorded or {}, str(given)).load()
    if recorded is None:
        raise SourceError(f"{manifest.name} was made without rows", fix="name rows with --data")
    source = recorded.get("source")
    if source == "memory:":
        raise SourceError(
            "the rows came from Python and are not at hand", fix="hand them over as `data`"
        )
    try:
        return _data(recorded, None).load()
    except SourceError as error:
        raise SourceError(
            f"the rows ({source}) are not at hand: {error.what}",
            expected=error.expected,
            fix="say where they are with --data",
        ) from error


def dataset_digest(manifest: Manifest) -> str:
    """`rowsHash1` of the rows that a derivation used, as its manifest says; empty if it used none."""
    found = dataset(manifest)
    return found.digest.get("rowsHash1", "") if found else ""


def dataset(manifest: Manifest) -> Descriptor | None:
    """What a manifest says of the rows that were used; None if none were."""
    items = manifest.definition.dependencies
    return next((each for each in items if each.role == "dataset"), None)


def _data(recorded: Mapping[str, Json], source: str | None) -> Data:
    """What a manifest says about its data, read as strictly as a recipe; perhaps from another source."""
    if source is None:
        value = dict(recorded)
        _refuse_paths(value)
    else:
        # subset and revision are those of the hub, and have no effect elsewhere
        parts = () if recorded.get("source") == "memory:" else _PARTS
        value = {name: recorded[name] for name in parts if recorded.get(name) is not None}
        value["source"] = source
    binder = Binder(Document(value, {}, MANIFEST), {})
    data = binder.bind(Data, value, ("data",))
    if data is FAILED:
        why = "; ".join(map(str, binder.problems))
        raise SourceError(f"what the manifest says of its rows is not known here: {why}")
    return data


def _refuse_paths(value: Mapping[str, Json]) -> None:
    """A manifest names a file by its last name only; one that names more of this machine was not written by us."""
    for name in ("source", *_PARTS):
        text = value.get(name)
        if isinstance(text, str) and source_kind(text) in ("file", "imagefolder"):
            _, _, path = text.rpartition(":")
            if set(path) & set("/\\~"):
                raise SourceError(
                    f"the manifest names rows by a path ({text[:80]}), which is not opened",
                    fix="say where the rows are with --data",
                )
