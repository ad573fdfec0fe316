"""The chain of manifests from a model to its bases.

A child names each parent by the digest of its files and by that of its manifest, so the manifests
form a graph in which nothing can be swapped: another past is another digest. Such a graph has no
cycles; walks are bounded anyway, because the bytes come from strangers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.descriptors import Parent
from reuselib.lineage.manifest import Manifest, read_payload

MAX_DEPTH = 64
MAX_NODES = 4096
MAX_BYTES = 64 * 2**20
"""Of all manifests in a folder together."""
ANCESTORS = "lineage/ancestors"
"""Where the manifests of all ancestors are, in a model folder."""


@dataclass(frozen=True)
class Chain:
    """What was reached from a model."""

    manifests: Mapping[str, Manifest]
    """The ancestors by digest of their manifest, nearest first."""
    missing: tuple[Parent, ...] = ()
    """Parents whose manifest was not at hand."""


def history(folder: Path) -> dict[str, bytes]:
    """The manifests that a child of this model must carry: the model's own and those it carries itself."""
    own = read_payload(folder)
    return {hashlib.sha256(own).hexdigest(): own, **read_ancestors(folder)}


def read_ancestors(folder: Path) -> dict[str, bytes]:
    """The manifests in a model folder's `lineage/ancestors`, by the digest that their file names claim."""
    files = sorted(path for path in (folder / ANCESTORS).glob("*.json") if path.is_file())
    if len(files) > MAX_NODES:
        raise IntegrityError(
            "LIMIT", f"{len(files)} ancestors, at most {MAX_NODES}", path=ANCESTORS
        )
    ancestors: dict[str, bytes] = {}
    left = MAX_BYTES
    for path in files:
        try:
            with path.open("rb") as file:
                ancestors[path.stem] = file.read(min(left, canonical.MAX_BYTES) + 1)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        left -= len(ancestors[path.stem])
        if left < 0:
            raise IntegrityError(
                "LIMIT", f"ancestors of more than {MAX_BYTES} bytes", path=ANCESTORS
            )
    return ancestors


def walk(manifest: Manifest, ancestors: Mapping[str, bytes]) -> Chain:
    """Follow a manifest to its bases.

    Args:
        manifest: where to start.
        ancestors: bytes of manifests, by SHA-256.

    Raises:
        IntegrityError: `PARENT_STATEMENT_MISMATCH` if bytes are not those of their digest, `PARENT_MISMATCH` if a
            parent's manifest is about another model than the child says, `LIMIT`, or what `Manifest.parse` raises.
    """
    found: dict[str, Manifest] = {}
    missing: list[Parent] = []
    level = list(manifest.parents)
    for _ in range(MAX_DEPTH):
        following: list[Parent] = []
        for parent in level:
            if parent.manifest_sha256 not in ancestors:
                missing.append(parent)
                continue
            ancestor = found.get(parent.manifest_sha256)
            if ancestor is None:
                ancestor = _read(parent, ancestors[parent.manifest_sha256])
                found[parent.manifest_sha256] = ancestor
                following.extend(ancestor.parents)
            _check_identity(parent, ancestor)
        if len(found) > MAX_NODES:
            raise IntegrityError("LIMIT", f"more than {MAX_NODES} ancestors", path=ANCESTORS)
        level = following
        if not level:
            return Chain(found, tuple(missing))
    raise IntegrityError("LIMIT", f"more than {MAX_DEPTH} generations", path=ANCESTORS)


def read_parent(parent: Parent, data: bytes) -> Manifest:
    """The manifest of one parent from its bytes; raises as `walk` if it is not the one that the child names."""
    ancestor = _read(parent, data)
    _check_identity(parent, ancestor)
    return ancestor


def _read(parent: Parent, data: bytes) -> Manifest:
    path = f"{ANCESTORS}/{parent.manifest_sha256}.json"
    actual = hashlib.sha256(data).hexdigest()
    if actual != parent.manifest_sha256:
        raise IntegrityError(
            "PARENT_STATEMENT_MISMATCH",
            f"the manifest of {parent.name!r} has the digest {actual}, not the one it is filed under",
            path=path,
        )
    return Manifest.parse(data, path=path)


def _check_identity(parent: Parent, ancestor: Manifest) -> None:
    if parent.digests != ancestor.digests:
        raise IntegrityError(
            "PARENT_MISMATCH",
            f"the manifest of {parent.name!r} is about another model: "
            f"dirHash {ancestor.digests.dir_hash}, expected {parent.digests.dir_hash}",
            path=f"{ANCESTORS}/{parent.manifest_sha256}.json",
        )
