"""Keys to sign with and to verify with: elliptic curves in PEM files, as the OpenSSF's signatures have them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import SourceError, StoreError
from reuselib.lineage.disk import writing
from reuselib.signing.extra import needing_extra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Curves that OpenSSF Model Signing v1.0 knows."""
MAX_BYTES = 2**16
"""Of a PEM file with keys or certificates."""


def make_keys(private: Path) -> Path:
    """Make a pair of keys on the curve P-256; return the path of the public one, `<private>.pub`.

    The private key is not encrypted; only its owner may read it.

    Raises:
        StoreError: one of the files exists already, or cannot be written.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    with needing_extra():
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

    public = private.with_name(f"{private.name}.pub")
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise StoreError(
                f"{path} exists already",
                expected="a new file: a key that was overwritten is gone for ever",
                fix="choose another name",
            )
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _create(private, pem, mode=0o600)
    _create(public, public_pem(key.public_key()), mode=0o644)
    return public


def private_key(path: Path) -> EllipticCurvePrivateKey:
    """Read a private key.

    Raises:
        SourceError: it cannot be read, is encrypted, or is no key on a known curve.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    with needing_extra():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_pem(path)
    if b"-----BEGIN PUBLIC KEY-----" in data:
        raise SourceError(
            f"{path} is a public key",
            expected="the private one, which `reuselib keygen` writes beside it",
            fix="name the file without `.pub`",
        )
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise SourceError(
            f"the private key {path} is encrypted",
            expected="a private key without a password",
            fix="decrypt it for the signing, such as with `openssl pkey`",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "private") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise _no_key(path, "private")
    return key


def public_key(path: Path) -> EllipticCurvePublicKey:
    """Read a public key; raises as `private_key`."""
    with needing_extra():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = read_pem(path)
    if b"PRIVATE KEY-----" in data:
        raise SourceError(
            f"{path} is a private key",
            expected="the public one, which `reuselib keygen` writes beside it",
            fix=f"name {path}.pub",
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "public") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise _no_key(path, "public")
    return key


def public_pem(key: EllipticCurvePublicKey) -> bytes:
    """A public key as PEM text."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_hint(key: EllipticCurvePublicKey) -> str:
    """What signatures call a key: the sha256 of its PEM text, as 64 hex digits."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def read_pem(path: Path) -> bytes:
    """The bytes of a PEM file.

    Raises:
        SourceError: it cannot be read, or is too large to be one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror}", expected="a PEM file", fix="check the path"
        ) from error
    if len(data) > MAX_BYTES:
        raise SourceError(f"{path} is larger than {MAX_BYTES} bytes", expected="a PEM file")
    return data


def _create(path: Path, data: bytes, *, mode: int) -> None:
    with writing(path, otherwise="choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Exclusively, and with its final permissions from the first instant.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _no_key(path: Path, kind: str) -> SourceError:
    return SourceError(
        f"{path} holds no {kind} key that signatures can be made with",
        expected=f"a PEM file with a {kind} elliptic-curve key (P-256, P-384 or P-521)",
        fix="make a pair with `reuselib keygen`",
    )
