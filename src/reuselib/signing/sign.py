"""Signing a model folder, the record included, as OpenSSF Model Signing v1.0."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import SourceError
from reuselib.lineage.digest import SIGNATURE
from reuselib.lineage.disk import write_file
from reuselib.lineage.verify import verify
from reuselib.signing.bundle import read_bundle
from reuselib.signing.extra import needing_extra
from reuselib.signing.keys import key_hint, private_key
from reuselib.signing.official import signed


@dataclass(frozen=True)
class Signature:
    """What was signed, and by whom."""

    signer: str
    """As a verifier's report names it, unless the policy knows a better name."""
    num_files: int


def sign(folder: str | Path, key: str | Path, certificates: Sequence[Path] = ()) -> Signature:
    """Sign every file of a model folder and write the signature to `model.sig`, in place of an older one.

    Args:
        folder: a model with its record. What does not match its record is not signed.
        key: PEM file of the private key.
        certificates: PEM files: the key's certificate, then those of its issuers up to one that verifiers trust.
            Without any, verifiers need the public key itself.

    Raises:
        IntegrityError: `verify` finds something wrong with the folder; the first finding's code.
        SourceError: there is no such folder, key or certificate, or the certificate is not the key's.
        StoreError: the signature cannot be written.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    folder, key = Path(folder), Path(key)
    with needing_extra():
        import model_signing  # noqa: F401  # pyright: ignore[reportUnusedImport]
    hint = key_hint(private_key(key).public_key())
    report = verify(folder)
    if not report.ok:
        raise report.refusal(
            f"{folder} is not signed, for it does not match its record",
            fix="sign a folder that `reuselib verify` passes",
        )
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, SIGNATURE)
        try:
            signed(folder, report.files, key=key, certificates=certificates, target=target)
        except (ValueError, OSError) as error:
            raise SourceError(
                f"cannot sign with {key}: {error}",
                expected="the key's own certificate first, then those of its issuers, as PEM files",
                fix="check key and certificates",
            ) from error
        data = target.read_bytes()
    # What is handed out is what our own strict reader accepts.
    bundle = read_bundle(data)
    write_file(folder / SIGNATURE, data)
    return Signature(bundle.signer or f"key {hint}", len(report.files))
