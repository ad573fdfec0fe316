"""DSSE envelopes (Dead Simple Signing Envelope v1): a few bytes with a signature around them, made and read strictly.

What is signed is not the bytes alone but also their type and both lengths (PAE), so that no signature can be taken for
one of something else: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.reading import Fields
from reuselib.signing.encoding import decoded, malformed_signature
from reuselib.signing.extra import needing_extra
from reuselib.signing.keys import key_hint, private_key, public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey

MAX_BYTES = 24 * 2**20
"""Of an envelope: the largest manifest, in base64."""
MAX_SIGNATURES = 64


@dataclass(frozen=True)
class Envelope:
    """An envelope that is well-formed. Whether a signature holds is another question."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    """What each says of its key (`keyid`, perhaps empty), and the signature itself."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: `DSSEv1 <length> <type> <length> <payload>`."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload: bytes, payload_type: str, key: Path) -> bytes:
    """An envelope around `payload`, signed with a private key (ECDSA, with the hash of the key's curve).

    Raises:
        SourceError: the key cannot be read.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    private = private_key(key)
    public = private.public_key()
    signature = private.sign(pae(payload_type, payload), _algorithm(public))
    return canonical.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": key_hint(public), "sig": base64.b64encode(signature).decode()}
            ],
        }
    )


def read_envelope(data: bytes) -> Envelope:
    """Read an envelope; no signature is checked.

    Raises:
        IntegrityError: `LIMIT`; `BAD_JSON`; `UNKNOWN_FIELD`; `UNSIGNED`, there is no signature in it; or
            `BAD_SIGNATURE`, it is malformed.
    """
    if len(data) > MAX_BYTES:
        raise IntegrityError("LIMIT", f"the envelope has more than {MAX_BYTES} bytes")
    with malformed_signature():
        content = canonical.loads(data, path="envelope", limit=MAX_BYTES)
        return _read(Fields(content, "", ("payload", "payloadType", "signatures"), "envelope"))


def open_envelope(data: bytes, payload_type: str, keys: Sequence[Path]) -> bytes:
    """The payload of an envelope, if one of its signatures is by one of `keys`.

    Args:
        data: the envelope.
        payload_type: what it must hold; the same bytes under another type are something else.
        keys: PEM files of public keys that are trusted. What the envelope says of its key is a hint, never trusted.

    Raises:
        IntegrityError: as `read_envelope`; `WRONG_TYPE`, it holds something else; `UNTRUSTED_SIGNER`, none of the
            signatures is by one of the keys, or the payload was changed.
        SourceError: a key cannot be read.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    envelope = read_envelope(data)
    if envelope.payload_type != payload_type:
        raise IntegrityError(
            "WRONG_TYPE",
            f"payloadType is {envelope.payload_type[:80]!r}, expected {payload_type!r}",
        )
    signed = pae(payload_type, envelope.payload)
    trusted = [public_key(path) for path in keys]
    if not any(_holds(key, sig, signed) for key in trusted for _, sig in envelope.signatures):
        said = ", ".join(hint[:64] for hint, _ in envelope.signatures if hint)
        raise IntegrityError(
            "UNTRUSTED_SIGNER",
            f"no signature is by one of {len(trusted)} trusted keys; it says it is by {said or 'nobody'}",
            fix="ask the signer for the public key, by another way than with the envelope",
        )
    return envelope.payload


def _read(fields: Fields) -> Envelope:
    signatures = fields.objects("signatures", ("sig", "keyid"))
    if not signatures:
        raise fields.refuse("there is no signature in it", "UNSIGNED")
    if len(signatures) > MAX_SIGNATURES:
        raise fields.refuse(f"{len(signatures)} signatures, at most {MAX_SIGNATURES}", "LIMIT")
    payload = decoded(fields, "payload")
    if not payload:
        raise fields.refuse("'payload' is empty")
    signed = tuple((each.find("keyid", str, ""), decoded(each, "sig")) for each in signatures)
    if not all(signature for _, signature in signed):
        raise fields.refuse("a signature in it is empty", "UNSIGNED")
    return Envelope(payload, fields.get("payloadType", str), signed)


def _holds(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed, _algorithm(key))
    except InvalidSignature:
        return False
    return True


def _algorithm(key: EllipticCurvePublicKey) -> ECDSA:
    """The hash that belongs to a curve."""
    with needing_extra():
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

    if key.curve.key_size <= 256:
        return ec.ECDSA(hashes.SHA256())
    return ec.ECDSA(hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512())
