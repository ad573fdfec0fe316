"""Whether what a bill of materials shows is what the manifests inside it say: a reader sees the view, not the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reuselib.errors import IntegrityError
from reuselib.exchange import components
from reuselib.exchange.components import Part
from reuselib.exchange.dossier import Dossier
from reuselib.exchange.workflow import formulation
from reuselib.lineage.chain import walk
from reuselib.lineage.digest import dir_hash
from reuselib.lineage.manifest import Manifest

if TYPE_CHECKING:
    from reuselib.adapter import Json

_KEYS = ("type", "name", "hashes", "licenses", "purl")
"""What people and scanners read of a component, beside our own properties."""


def check_view(
    bill: Mapping[str, Json], manifest: Manifest, ancestors: Mapping[str, bytes]
) -> None:
    """Refuse a bill whose names, digests, licences, files, pedigree, rows or settings are not those of the manifest.

    Its figures cannot be held against anything here: a manifest binds them by the digest of `metrics.json` only.

    Raises:
        IntegrityError: `BAD_BOM`, with the first thing that is wrong; or what `walk` raises.
    """
    dossier = Dossier(manifest, ancestors=walk(manifest, ancestors).manifests)
    about = _object(_object(bill.get("metadata")).get("component"))
    pedigree = _object(about.get("pedigree")).get("ancestors")
    _compare("the model", [about], [components.model(dossier)])
    _compare("the pedigree", _objects(pedigree), components.ancestors(dossier))
    _compare("the rows", _objects(bill.get("components")), map(components.rows, dossier.datasets))
    listed = _files(about)
    if listed and (
        len(dict(listed)) < len(listed) or dir_hash(dict(listed)) != manifest.digests.dir_hash
    ):
        raise _contradiction("the list of files")
    if [*_settings(bill.get("formulation"))] != [*_settings([formulation(dossier)])]:
        raise _contradiction("the list of settings")


def _compare(what: str, shown: Iterable[Part], recorded: Iterable[Part]) -> None:
    """Hold components against those that would be written for the manifest."""
    seen, true = [*shown], [*recorded]
    if len(seen) != len(true):
        raise _contradiction(what)
    for one, other in zip(seen, true, strict=True):
        known = [*_objects(other.get("properties"))]
        ours = (p for p in _objects(one.get("properties")) if _is_ours(p))
        if any(one.get(key) != other.get(key) for key in _KEYS) or not all(
            each in known for each in ours
        ):
            raise _contradiction(what)


def _contradiction(what: str) -> IntegrityError:
    return IntegrityError(
        "BAD_BOM",
        f"{what} as the bill shows it is not what the manifest inside it says",
        fix="believe neither: ask whoever made the bill for the model's lineage/ folder",
    )


def _is_ours(fact: Part) -> bool:
    return str(fact.get("name")).startswith("reuselib:")


def _files(component: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(each.get("name")), str(digest.get("content")))
        for each in _objects(component.get("components"))
        for digest in _objects(each.get("hashes"))
    ]


def _settings(formulas: object) -> Iterator[tuple[object, object]]:
    for formula in _objects(formulas):
        for run in _objects(formula.get("workflows")):
            for given in _objects(run.get("inputs")):
                for each in _objects(given.get("parameters")):
                    yield each.get("name"), each.get("value")


def _object(value: object) -> Part:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> Iterator[Part]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))
