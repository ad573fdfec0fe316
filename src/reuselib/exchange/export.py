"""`export`: what a model's record says, in a form that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from reuselib.errors import IntegrityError, ReuseError, SourceError
from reuselib.exchange.bom import bom
from reuselib.exchange.card import card
from reuselib.exchange.dossier import Dossier
from reuselib.exchange.intoto import statement
from reuselib.exchange.spdx import spdx
from reuselib.lineage.digest import file_digests

FORMS = ("bom", "card", "intoto", "spdx")


def export(
    folder: Path, to: Literal["bom", "card", "intoto", "spdx"], key: Path | None = None
) -> bytes:
    """Write the record of a model folder in another form. Weights are neither read nor checked: `verify` does.

    Args:
        folder: of a derived model.
        to: `bom`, a CycloneDX 1.7 machine-learning bill of materials; `card`, a Hugging Face model card; `intoto`,
            the manifest itself, an in-toto statement; `spdx`, SPDX 3.0.1 with its AI profile.
        key: PEM file of a private key that signs the statement, as a DSSE envelope; only for `intoto`.

    Raises:
        ReuseError: `to` is unknown, or a key is given for a form that has no signature.
        SourceError: the folder has no manifest, or the key cannot be read.
        IntegrityError: the record is malformed, or not the one that the manifest names.
        MissingExtra: a key is given, and `reuselib[sign]` is not installed.
    """
    if to not in FORMS:
        raise ReuseError(f"there is no export to {to!r}", expected=f"one of {', '.join(FORMS)}")
    if key is not None and to != "intoto":
        raise ReuseError(
            f"an export to {to!r} cannot be signed",
            expected="a key with `intoto` only",
            fix="sign the folder, record included, with `reuselib sign`",
        )
    dossier = Dossier.read(folder)
    if to == "intoto":
        return statement(dossier, key=key)
    if to == "card":
        return card(dossier).encode()
    return bom(dossier) if to == "bom" else spdx(dossier)


def unlike_record(folder: Path) -> tuple[str, ...]:
    """Files that are not those which the record names, by path: an export says nothing of them. Hashes the folder.

    Raises:
        SourceError, IntegrityError: as `export`, the record itself cannot be read.
    """
    recorded = Dossier.read(folder).files
    try:
        actual = file_digests(folder)
    except (SourceError, IntegrityError) as error:
        return (error.what,)
    names = sorted(recorded.keys() | actual.keys())
    return tuple(name for name in names if recorded.get(name) != actual.get(name))
