"""The envelope around a signature: a Sigstore bundle with a DSSE envelope, read strictly before others read it."""

from __future__ import annotations

from dataclasses import dataclass

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.digest import SIGNATURE
from reuselib.lineage.reading import Fields
from reuselib.signing.encoding import decoded, malformed_signature
from reuselib.signing.statement import Statement, parse_statement

MAX_BYTES = 24 * 2**20
"""Of the file; base64 makes four bytes of three."""
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MATERIAL = (
    "publicKey",
    "x509CertificateChain",
    "certificate",
    "tlogEntries",
    "timestampVerificationData",
)


@dataclass(frozen=True)
class Bundle:
    """A signature that is well-formed. Whether it holds is another question."""

    statement: Statement
    hint: str = ""
    """The sha256 of the signer's public key as PEM text, as the signer says; older writers leave it out."""
    certificates: tuple[bytes, ...] = ()
    """In DER form: the signer's, then those of its issuers. Empty if a bare key signed."""

    @property
    def signer(self) -> str:
        """Who is said to have signed, unchecked."""
        if self.certificates:
            from reuselib.signing.certificates import subject

            return subject(self.certificates[0])
        return f"key {self.hint}" if self.hint else ""


def read_bundle(data: bytes) -> Bundle:
    """Read the bytes of a `model.sig`.

    Raises:
        IntegrityError: `LIMIT`; `BAD_JSON`; `UNKNOWN_FIELD`; `WRONG_TYPE`, it is something else; `UNSIGNED`, there is
            no signature in it; `BAD_SIGNATURE`, it is malformed; or what `parse_statement` raises.
    """
    if len(data) > MAX_BYTES:
        raise IntegrityError(
            "LIMIT", f"{SIGNATURE} has more than {MAX_BYTES} bytes", path=SIGNATURE
        )
    with malformed_signature(SIGNATURE):
        return _read(data)


def _read(data: bytes) -> Bundle:
    content = canonical.loads(data, path=SIGNATURE, limit=MAX_BYTES)
    fields = Fields(
        content,
        "",
        ("mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature"),
        SIGNATURE,
    )
    if (kind := fields.get("mediaType", str)) != MEDIA_TYPE:
        raise fields.refuse(f"mediaType is {kind[:80]!r}, expected {MEDIA_TYPE!r}", "WRONG_TYPE")
    if "messageSignature" in fields.value:
        raise fields.refuse("it signs a file rather than a statement about files", "WRONG_TYPE")
    envelope = fields.object("dsseEnvelope", ("payload", "payloadType", "signatures"))
    if (kind := envelope.get("payloadType", str)) != PAYLOAD_TYPE:
        what = f"payloadType is {kind[:80]!r}, expected {PAYLOAD_TYPE!r}"
        raise envelope.refuse(what, "WRONG_TYPE")
    signatures = envelope.objects("signatures", ("sig", "keyid"))
    if not signatures or not all(decoded(each, "sig") for each in signatures):
        raise envelope.refuse("there is no signature in it", "UNSIGNED")
    if len(signatures) > 1:
        raise envelope.refuse(f"{len(signatures)} signatures, but such a bundle has one")
    hint, certificates = _material(
        Fields(
            fields.get("verificationMaterial", dict), "verificationMaterial", _MATERIAL, SIGNATURE
        )
    )
    return Bundle(parse_statement(decoded(envelope, "payload")), hint, certificates)


def _material(fields: Fields) -> tuple[str, tuple[bytes, ...]]:
    """What is said about the signer: a key's hint, or certificates."""
    if "certificate" in fields.value:
        what = "it was made without a key of its own (Sigstore), which cannot be checked offline"
        raise fields.refuse(what, "UNTRUSTED_SIGNER")
    if ("publicKey" in fields.value) == ("x509CertificateChain" in fields.value):
        raise fields.refuse("expected either a public key or certificates")
    if "publicKey" in fields.value:
        key = fields.object("publicKey", ("hint", "rawBytes", "keyDetails"))
        return (key.optional("hint", str) or "" if key.value.get("hint") else "", ())
    chain = fields.object("x509CertificateChain", ("certificates",))
    certificates = tuple(
        decoded(each, "rawBytes") for each in chain.objects("certificates", ("rawBytes",))
    )
    if not certificates:
        raise chain.refuse("there is no certificate in it")
    return "", certificates
