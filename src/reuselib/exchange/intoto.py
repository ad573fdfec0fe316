"""The manifest as other tools of the supply chain take it: the bare in-toto statement, or a signed DSSE envelope."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reuselib.exchange.dossier import Dossier
from reuselib.lineage.manifest import Manifest
from reuselib.signing.dsse import open_envelope, sign_envelope

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def statement(dossier: Dossier, *, key: Path | None = None) -> bytes:
    """The exact bytes of the manifest; with a private key, in an envelope that it signed.

    The envelope vouches for the statement alone: that a folder is the one it speaks of is for `verify` to say.

    Raises:
        SourceError: the key cannot be read.
        MissingExtra: a key is given, and `reuselib[sign]` is not installed.
    """
    payload = dossier.manifest.payload()
    return payload if key is None else sign_envelope(payload, PAYLOAD_TYPE, key)


def manifest_of_envelope(data: bytes, keys: Sequence[Path]) -> bytes:
    """The exact bytes of the manifest in an envelope, if one of `keys` signed it.

    Args:
        data: the envelope.
        keys: PEM files of public keys that are trusted.

    Raises:
        IntegrityError: what `reuselib.signing.dsse.open_envelope` raises, or `Manifest.parse`.
        SourceError: a key cannot be read.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    payload = open_envelope(data, PAYLOAD_TYPE, keys)
    Manifest.parse(payload)
    return payload
