"""The pieces that an SPDX document is put together from: elements, digests, and entries of dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reuselib.exchange.components import Part
from reuselib.exchange.dossier import written

if TYPE_CHECKING:
    from reuselib.adapter import Json

CREATION = "_:creation"
"""The one account of who made the document and when, which every element refers to."""


def element(kind: str, spdx_id: str, name: str, facts: Mapping[str, object] = {}) -> Part:
    """An element of the graph, without the facts that are not known."""
    told = {
        key: value for key, value in facts.items() if value is not None and value not in ("", [])
    }
    return {"type": kind, "spdxId": spdx_id, "creationInfo": CREATION, "name": name, **told}


def identity(digests: Mapping[str, str]) -> list[Part]:
    """`dirHash` is a SHA-256, of a list of files; our other digests are of kinds that SPDX has no word for."""
    known = {"dirHash": "sha256", "sha256": "sha256", "sha384": "sha384", "sha512": "sha512"}
    return [
        hash_of(known.get(algorithm, "other"), value, comment=algorithm)
        for algorithm, value in sorted(digests.items())
    ]


def hash_of(algorithm: str, value: str, comment: str = "") -> Part:
    """A digest, with our own name for it if that is another."""
    about = {"comment": comment} if comment and comment != algorithm else {}
    return {"type": "Hash", "algorithm": algorithm, "hashValue": value, **about}


def entries(facts: list[tuple[str, Json]]) -> list[Part]:
    """A dictionary as SPDX writes it."""
    return [
        {"type": "DictionaryEntry", "key": key, "value": written(value)} for key, value in facts
    ]
