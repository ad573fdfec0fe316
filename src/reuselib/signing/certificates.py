"""Certificates of signers: whether one leads to an authority that the verifier trusts, now, and whom it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.digest import SIGNATURE
from reuselib.signing.extra import needing_extra
from reuselib.signing.keys import read_pem


def check_certificates(chain: Sequence[bytes], roots: Sequence[Path]) -> None:
    """Check that a signer's certificate is valid today and was issued, over the others, by one of `roots`.

    The official package looks at the day on which the certificate became valid, so that it takes one that
    expired long ago; a signature with a bare key or certificate proves no time, so today is all there is.

    Args:
        chain: certificates in DER form, the signer's first.
        roots: PEM files of self-signed certificates.

    Raises:
        IntegrityError: `UNTRUSTED_SIGNER`, with the reason.
        SourceError: a file of `roots` holds no certificate.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    with needing_extra():
        from cryptography import x509
        from OpenSSL import crypto

    store = crypto.X509Store()
    for path in roots:
        try:
            trusted = x509.load_pem_x509_certificates(read_pem(path))
        except ValueError as error:
            raise SourceError(
                f"{path} holds no certificate",
                expected="a PEM file with the certificates of authorities",
                fix="check `trusted_roots` of the policy",
            ) from error
        for certificate in trusted:
            store.add_cert(crypto.X509.from_cryptography(certificate))
    try:
        own, *others = [
            crypto.X509.from_cryptography(x509.load_der_x509_certificate(each)) for each in chain
        ]
        crypto.X509StoreContext(store, own, others).verify_certificate()
    except (ValueError, crypto.Error, crypto.X509StoreContextError) as error:
        raise IntegrityError(
            "UNTRUSTED_SIGNER",
            f"the signer's certificate is not accepted: {error}",
            path=SIGNATURE,
            fix="ask for a signature with a valid certificate of an authority that your policy names",
        ) from error


def names(certificate: bytes) -> tuple[str, ...]:
    """Whom a certificate in DER form names: subject, its common name, and all alternative names.

    Raises:
        MissingExtra: `reuselib[sign]` is not installed.
    """
    with needing_extra():
        from cryptography import x509
        from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_der_x509_certificate(certificate)
        extensions = parsed.extensions
    except ValueError:
        return ()
    found = [parsed.subject.rfc4514_string()]
    found += [
        str(each.value) for each in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            found += [str(each.value) for each in extension.value]
    return tuple(each for each in found if each)


def subject(certificate: bytes) -> str:
    """The subject of a certificate in DER form, or that it cannot be read."""
    return next(iter(names(certificate)), "a certificate without a readable subject")
