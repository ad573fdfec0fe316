"""Whether somebody whom the verifier trusts signed just these files."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.digest import SIGNATURE
from reuselib.lineage.policy import Policy
from reuselib.signing.bundle import MAX_BYTES, Bundle, read_bundle
from reuselib.signing.certificates import check_certificates, names
from reuselib.signing.differences import differences
from reuselib.signing.keys import key_hint, public_key
from reuselib.signing.official import holds_with_key, holds_with_roots


@dataclass(frozen=True)
class Checked:
    """What came of checking a signature that holds, by a signer whom the policy trusts."""

    signer: str
    num_files: int
    """That were signed."""
    problems: tuple[IntegrityError, ...] = ()
    """How the files at hand differ from those that were signed."""
    ignored: tuple[str, ...] = ()
    """Files that the signer left out."""


def check_signature(folder: Path, policy: Policy, files: Mapping[str, str]) -> Checked:
    """Check a folder's `model.sig` against keys and certificates of the policy, offline.

    OpenSSF Model Signing v1.0. The official package checks the signature; what was signed is compared here, with
    digests that were computed anyway.

    Args:
        folder: the model.
        policy: whom to trust.
        files: SHA-256 of every file but the signature, by relative path.

    Raises:
        IntegrityError: `UNSIGNED`, there is no signature; `UNTRUSTED_SIGNER`, it is nobody's whom the policy names;
            `BAD_SIGNATURE`, it does not hold; or what `read_bundle` raises.
        SourceError: a key or certificate of the policy cannot be read.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    refuse_keys_inside(folder, policy)
    # A key that cannot be read is the verifier's mistake, and told as such also of an unsigned folder.
    for path in policy.trusted_keys:
        public_key(Path(path))
    return check_bundle(_read(folder), folder, policy, files)


def check_bundle(data: bytes, folder: Path, policy: Policy, files: Mapping[str, str]) -> Checked:
    """As `check_signature`, for a signature that is at hand as bytes."""
    bundle = read_bundle(data)
    # The package reads files only, and this one may change; a copy of what was read here cannot.
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, SIGNATURE)
        copy.write_bytes(data)
        find = _certified if bundle.certificates else _keyed
        signer = find(bundle, copy, policy)
    try:
        problems = tuple(differences(folder, bundle.statement, files))
    except OSError as error:
        raise SourceError(f"cannot read {error.filename}: {error.strerror}") from error
    ignored = sorted(name for name in files if bundle.statement.ignores(name))
    return Checked(signer, len(bundle.statement.files), problems, tuple(ignored))


def _read(folder: Path) -> bytes:
    try:
        with (folder / SIGNATURE).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise IntegrityError(
            "UNSIGNED",
            f"there is no {SIGNATURE}",
            path=SIGNATURE,
            fix="ask for a signed copy: a policy that names whom to trust demands one",
        ) from error
    except OSError as error:
        raise SourceError(f"cannot read {folder / SIGNATURE}: {error.strerror}") from error


def refuse_keys_inside(folder: Path, policy: Policy) -> None:
    """Whoever made the folder would choose whom to trust.

    Raises:
        IntegrityError: `UNTRUSTED_SIGNER`, a key or authority of the policy lies in the folder.
    """
    for path in (*policy.trusted_keys, *policy.trusted_roots):
        if Path(path).resolve().is_relative_to(folder.resolve()):
            raise IntegrityError(
                "UNTRUSTED_SIGNER",
                f"the trusted key {path} lies in the model folder, so whoever made the folder chose it",
                path=SIGNATURE,
                fix="get the key from the signer by another way, and keep it elsewhere",
            )


def _keyed(bundle: Bundle, signature: Path, policy: Policy) -> str:
    """The trusted key that made a signature."""
    hints = {path: key_hint(public_key(Path(path))) for path in policy.trusted_keys}
    # A hint is only said, but what is said to be another's cannot be ours.
    asked = [path for path, hint in hints.items() if bundle.hint in ("", hint)]
    for path in asked:
        if holds_with_key(signature, bundle.statement, Path(path)):
            return f"key {hints[path]} ({Path(path).name})"
    if bundle.hint and asked:
        raise IntegrityError(
            "BAD_SIGNATURE",
            f"{SIGNATURE} does not hold: what it says is not what the key {bundle.hint} signed",
            path=SIGNATURE,
        )
    raise _untrusted(bundle.signer or "a key it does not name", len(hints), "key")


def _certified(bundle: Bundle, signature: Path, policy: Policy) -> str:
    """The subject of the trusted certificate that made a signature."""
    roots: Sequence[Path] = [Path(path) for path in policy.trusted_roots]
    if not roots:
        raise _untrusted(bundle.signer, 0, "certificate authority")
    check_certificates(bundle.certificates, roots)
    borne = names(bundle.certificates[0])
    if policy.identities and not set(borne) & set(policy.identities):
        raise IntegrityError(
            "UNTRUSTED_SIGNER",
            f"the signer is {' or '.join(borne)}, expected one of {', '.join(policy.identities)}",
            path=SIGNATURE,
        )
    if not holds_with_roots(signature, bundle.statement, roots):
        raise IntegrityError(
            "BAD_SIGNATURE",
            f"{SIGNATURE} does not hold, or the certificate of {bundle.signer} is not meant for signing",
            path=SIGNATURE,
        )
    digest = hashlib.sha256(bundle.certificates[0]).hexdigest()
    return f"{bundle.signer} (certificate {digest})"


def _untrusted(signer: str, num_trusted: int, kind: str) -> IntegrityError:
    return IntegrityError(
        "UNTRUSTED_SIGNER",
        f"{SIGNATURE} is by {signer}; the policy names {num_trusted or 'no'} "
        f"{kind}{'' if num_trusted == 1 else 's'}, and not this",
        path=SIGNATURE,
        fix="if you trust the signer, get the public key by another way and name it in your policy",
    )
