"""The official `model-signing` package, fed with digests that are known already, so that nothing is hashed twice.

It also orders files by path part, where the specification says code points; here they are handed over in order.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.lineage.digest import SIGNATURE
from reuselib.signing.extra import needing_extra

if TYPE_CHECKING:
    from reuselib.signing.statement import Resource, Statement


def signed(
    folder: Path,
    files: Mapping[str, str],
    *,
    key: Path,
    certificates: Sequence[Path] = (),
    target: Path,
) -> None:
    """Write the signature of files, given by relative path and SHA-256.

    Raises:
        ValueError: key and certificates do not belong together, or one is malformed.
        MissingExtra: `reuselib[sign]` is not installed.
    """
    with needing_extra():
        from model_signing import manifest, signing

    arguments = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE],
    }
    serialization = manifest.SerializationType.from_args(arguments)
    items = {name: ("sha256", bytes.fromhex(digest)) for name, digest in files.items()}
    config = signing.Config().set_hashing_config(
        _known(folder.resolve().name, items, serialization)
    )
    if certificates:
        config.use_certificate_signer(
            private_key=key,
            signing_certificate=certificates[0],
            # The package cannot do without a second one; the first again changes nothing.
            certificate_chain=certificates[1:] or certificates,
        )
    else:
        config.use_elliptic_key_signer(private_key=key)
    with _quiet():
        config.sign(folder, target)


def holds_with_key(signature: Path, statement: Statement, key: Path) -> bool:
    """Whether the signature in a file was made with the private half of `key`; raises as `holds_with_roots`."""
    return _holds(
        signature, statement, lambda config: config.use_elliptic_key_verifier(public_key=key)
    )


def holds_with_roots(signature: Path, statement: Statement, roots: Sequence[Path]) -> bool:
    """Whether the signature in a file was made with a certificate that leads to one of `roots`, at whatever time.

    Raises:
        MissingExtra: `reuselib[sign]` is not installed.
    """
    return _holds(
        signature,
        statement,
        lambda config: config.use_certificate_verifier(certificate_chain=roots),
    )


def _holds(signature: Path, statement: Statement, configure: Callable[[Any], Any]) -> bool:
    """Ask the package with the statement's own digests, so that only the signature is in question.

    It has no call for that alone, and other errors for every way in which a signature may be bad.
    """
    with needing_extra():
        from model_signing import manifest, verifying

    arguments = dict(statement.serialization)
    items = {each.label: _digest_of(each) for each in statement.resources}
    known = _known("", items, manifest.SerializationType.from_args(arguments))
    config = verifying.Config().set_hashing_config(known)
    try:
        with _quiet():
            configure(config)
            config.verify(signature.parent, signature)
    except Exception:  # noqa: BLE001 - of OpenSSL, pydantic, cryptography: all of them mean no
        return False
    return True


def _digest_of(resource: Resource) -> tuple[str, bytes]:
    return resource.algorithm, bytes.fromhex(resource.digest)


def _known(name: str, items: Mapping[str, tuple[str, bytes]], serialization: Any) -> Any:
    """A hashing configuration that hands out what is known instead of hashing."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import (
        Digest,  # In every manifest, yet without a public name.
    )

    class InOrder(manifest.Manifest):
        def resource_descriptors(self) -> Iterator[Any]:
            yield from sorted(super().resource_descriptors(), key=lambda each: each.identifier)

    class Known(hashing.Config):
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> manifest.Manifest:
            entries = [serialization.new_item(name, Digest(*items[name])) for name in items]
            return InOrder(name, entries, serialization)

    return Known()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package prints hints to standard output, where a program may expect JSON, and calls deprecated functions."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
