"""A recorded step, ready to be made again: its inputs found by digest, in a store of its own that nobody else sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, ModelRef
from reuselib.data import Data, Splits
from reuselib.data.sources import source_kind
from reuselib.derivation.plan import Plan, with_references
from reuselib.errors import DataError, IntegrityError, RecipeError, SourceError, StoreError
from reuselib.lineage.chain import Chain, walk
from reuselib.lineage.disk import writing
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.scratch import scratch
from reuselib.lineage.store import Store
from reuselib.model.model import recorded_task
from reuselib.model.opening import read_manifest, recorded_adapter
from reuselib.model.source import Pinned
from reuselib.values.named import parse_value

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.evidence.whereabouts import Whereabouts
    from reuselib.lineage.descriptors import Parent

_ANYBODYS = ("hub", "sample")
"""Kinds of sources that a record may send one to. Others are files of the maker's machine, not of this one."""


@dataclass(frozen=True)
class Rows:
    """The rows of a step, and whether they are the recorded ones."""

    splits: Splits | None
    missing: str = ""
    """Why they are not at hand."""
    mismatch: str = ""
    """In what they are not the recorded ones."""


def find_rows(manifest: Manifest, data: str | Data | Splits | None) -> Rows:
    """The rows that a step was made with, from where the manifest says, or from `data`; compared by digest.

    Raises:
        DataError: what `data` names cannot be read.
        SourceError: it is not there.
    """
    recorded = next((e for e in manifest.definition.dependencies if e.role == "dataset"), None)
    if recorded is None:
        return Rows(None)
    splits = _loaded(manifest.definition.data or {}, data)
    if isinstance(splits, str):
        return Rows(None, missing=splits)
    expected = recorded.digest.get("rowsHash1")
    if splits.digest == expected:
        return Rows(splits)
    return Rows(splits, mismatch=_mismatch(recorded.annotations.get("splits"), splits, expected))


def _loaded(told: Mapping[str, Json], data: str | Data | Splits | None) -> Splits | str:
    """The rows that the caller hands over or names, else those of the record, or why they cannot be had."""
    if isinstance(data, Splits):
        return data
    return _recorded(told) if data is None else _named(told, data)


def _named(told: Mapping[str, Json], data: str | Data) -> Splits:
    """The rows that the caller names: of a source alone, the same parts as recorded."""
    if isinstance(data, Data):
        return data.load()
    if len(told) < 2:  # rows from Python have no parts
        return Data(source=data).load()
    # a commit and a subset are those of a hub's data set, and the digest is compared anyway
    return replace(
        parse_value(Data, {**told, "revision": None, "subset": None}), source=data
    ).load()


def _recorded(told: Mapping[str, Json]) -> Splits | str:
    """The rows where the record says they are, or why they cannot be had."""
    source = str(told.get("source", ""))
    if source == "memory:":
        return "its rows came from Python, and only their maker has them; name them with --data"
    try:
        if source_kind(source) not in _ANYBODYS:
            return (
                f"its rows came from {source}, which only its maker can find; name them with --data"
            )
        return parse_value(Data, dict(told)).load()
    except (SourceError, DataError, RecipeError) as error:
        return f"its rows cannot be had: {error.what}; name them with --data"


def _mismatch(recorded: Json, splits: Splits, expected: str | None) -> str:
    here = splits.facts["splits"]
    assert isinstance(here, dict)
    known = recorded if isinstance(recorded, dict) else {}
    odd = [name for name in sorted(here.keys() | known.keys()) if here.get(name) != known.get(name)]
    return f"the rows are not the recorded ones: rowsHash1 {splits.digest}, recorded {expected}" + (
        f"; other rows in {', '.join(odd)}" if odd else ""
    )


@dataclass(frozen=True)
class Replan:
    """One step with everything at hand."""

    plan: Plan
    adapter: Adapter
    parent: Pinned
    output: Path
    """An empty folder for what is made."""


@contextmanager
def replanned(
    manifest: Manifest, history: Mapping[str, bytes], sources: Whereabouts, splits: Splits | None
) -> Iterator[Replan]:
    """The step that a manifest records, to be carried out in a store that is gone afterwards.

    Args:
        manifest: of the model.
        history: bytes of its ancestors' manifests, by SHA-256.
        sources: where its ancestors are.
        splits: the rows.

    Raises:
        SourceError: a parent is not at hand, or the task is one that only Python can say.
        IntegrityError: what is at hand is another model.
        RecipeError: adapter or task are not known here.
    """
    adapter, task, chain = (
        recorded_adapter(manifest),
        recorded_task(manifest),
        walk(manifest, history),
    )
    places = [(parent, _place(parent, chain, sources)) for parent in manifest.parents]
    first, place = places[0]
    ref = ModelRef(str(place), digest=first.digests.dir_hash)
    parent = Pinned(ref, place, first.uri, chain.manifests[first.manifest_sha256], history)
    root = sources.store.path / "tmp"
    with writing(root), scratch(root) as folder:
        store = _known(Store(folder / "store"), chain, places, sources)
        plan = Plan(
            base=parent,
            steps=(with_references(adapter, partial(_at_hand, places=dict(_by_digest(places)))),),
            task=task,
            splits=splits,
            data=None,
            seed=manifest.definition.seed or 0,
            store=store,
        )
        output = folder / "child"
        output.mkdir()
        yield Replan(plan, plan.steps[0], parent, output)


def _known(
    store: Store, chain: Chain, places: Sequence[tuple[Parent, Path]], sources: Whereabouts
) -> Store:
    """The store, once it knows where the models of the history are."""
    for each in chain.manifests.values():
        if (place := _somewhere(each, sources)) is not None:
            store.remember_root(each.digests.dir_hash, place)
    for parent, place in places:
        store.remember_root(parent.digests.dir_hash, place)
    return store


def _place(parent: Parent, chain: Chain, sources: Whereabouts) -> Path:
    """Where a parent is, with the record that the child's history has of it and no other."""
    if parent.manifest_sha256 not in chain.manifests:
        raise SourceError(
            f"the manifest of the parent '{parent.name}' is not at hand",
            expected="it in lineage/ancestors of the model",
            fix="get the model again",
        )
    place = sources.folder(parent)
    own = read_manifest(place)
    if own is not None and own.sha256 != parent.manifest_sha256:
        raise IntegrityError(
            "PARENT_STATEMENT_MISMATCH",
            f"{place} holds the files of the parent '{parent.name}', but another record (manifest {own.sha256}, "
            f"expected {parent.manifest_sha256})",
            fix="get the parent again",
        )
    return place


def _somewhere(manifest: Manifest, sources: Whereabouts) -> Path | None:
    """Where an earlier ancestor may be; whoever opens it compares its bytes."""
    for folder, digests in sources.named.items():
        if digests == manifest.digests:
            return folder
    internal = manifest.definition.internal
    child = None
    if internal is not None:
        with suppress(StoreError):  # a stranger's manifest may name what is no id
            child = sources.store.find(internal.derivation_id)
    return child or sources.store.locate(manifest.digests.dir_hash)


def _by_digest(places: list[tuple[Parent, Path]]) -> Iterator[tuple[str, Path]]:
    for parent, place in places:
        yield parent.digests.dir_hash, place


def _at_hand(ref: ModelRef, places: Mapping[str, Path]) -> ModelRef:
    """The same model where it is here: what a stranger's record names is never fetched, and no code of it is run."""
    place = places.get(ref.digest or "")
    if place is None:
        raise IntegrityError(
            "BAD_MANIFEST", f"the adapter names a model {ref.source!r} that is none of the parents"
        )
    return ModelRef(str(place), digest=ref.digest)
