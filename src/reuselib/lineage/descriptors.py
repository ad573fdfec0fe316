"""References to artefacts by digest: what a derivation used and what it left besides the model.

Both are in-toto resource descriptors. Everything of our own is in their annotations, which the
standard leaves free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.lineage.digest import Digests
from reuselib.lineage.reading import Fields

if TYPE_CHECKING:
    from reuselib.adapter import Json

ROLES = (
    "base",
    "teacher",
    "student-init",
    "merge-source",
    "adapter",
    "dataset",
    "calibration",
    "eval",
    "code",
    "recipe",
    "environment",
    "parent-statement",
    "tool",
)
PARENT_ROLES = ("base", "teacher", "student-init", "merge-source", "adapter")
"""Roles of models: each has its manifest's digest recorded too, so that its history cannot be swapped."""

_HEX = {
    "sha256": 64,
    "sha384": 96,
    "sha512": 128,
    "dirHash": 64,
    "tensorHash1": 64,
    "rowsHash1": 64,
}
_WEAK = ("md5", "sha1", "gitCommit")
_SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_FIELDS = ("name", "uri", "digest", "mediaType", "annotations")


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """Something identified by its content: a model, a data set, a file."""

    name: str
    """Short name, unique in its list."""
    digest: Mapping[str, str] = field(default_factory=dict)
    """By algorithm: `sha256`, `dirHash`, `tensorHash1`, `rowsHash1` (rows of a data set), `gitCommit`."""
    role: str
    """What it was to the derivation."""
    uri: str = ""
    """Where it came from, without paths of a machine."""
    media_type: str = ""
    annotations: Mapping[str, Json] = field(default_factory=dict)
    """Whatever else is worth knowing, such as a licence or a weight."""

    def to_json(self) -> dict[str, Json]:
        """As the standard writes it; empty fields are left out."""
        written = {
            "name": self.name,
            "uri": self.uri,
            "digest": dict(self.digest),
            "mediaType": self.media_type,
            "annotations": {**self.annotations, "role": self.role},
        }
        return {key: value for key, value in written.items() if value}

    @classmethod
    def parse(cls, fields: Fields) -> Descriptor:
        """Read what `to_json` gave."""
        annotations = dict(fields.get("annotations", dict))
        role = annotations.pop("role", None)
        if not isinstance(role, str):
            raise fields.refuse("the annotation 'role' is missing")
        return cls(
            name=fields.get("name", str),
            digest=parse_digest(fields),
            role=role,
            uri=fields.find("uri", str, ""),
            media_type=fields.find("mediaType", str, ""),
            annotations=annotations,
        )


@dataclass(frozen=True)
class Parent:
    """A model that a child was made from: its identity, and that of its own history."""

    name: str
    role: str
    uri: str
    digests: Digests
    manifest_sha256: str
    annotations: Mapping[str, Json] = field(default_factory=dict)

    def descriptors(self) -> tuple[Descriptor, Descriptor]:
        """The entries among the dependencies: the model, and its manifest."""
        model = Descriptor(
            name=self.name,
            digest=self.digests.to_json(),
            role=self.role,
            uri=self.uri,
            annotations=self.annotations,
        )
        statement = Descriptor(
            name=f"{self.name}.statement",
            digest={"sha256": self.manifest_sha256},
            role="parent-statement",
            media_type="application/vnd.in-toto+json",
            annotations={"of": self.name},
        )
        return model, statement


def parse_descriptors(fields: Fields, name: str) -> tuple[Descriptor, ...]:
    """Read a list of descriptors; names must differ, because everything else refers to them."""
    items = tuple(Descriptor.parse(item) for item in fields.objects(name, _FIELDS))
    names = [item.name for item in items]
    if len(set(names)) < len(names):
        raise fields.refuse(f"{name!r} has two entries of one name")
    return items


def parse_digest(fields: Fields) -> dict[str, str]:
    """Read a digest set, which must hold one strong digest of something that is not empty."""
    digest = fields.texts("digest")
    for algorithm, value in digest.items():
        length = _HEX.get(algorithm)
        if length is None and algorithm not in _WEAK:
            raise fields.refuse(f"digest algorithm {algorithm!r} is not known", "WEAK_DIGEST")
        if length is not None and not re.fullmatch(f"[0-9a-f]{{{length}}}", value):
            raise fields.refuse(f"{algorithm} {value[:80]!r} is not {length} lower-case hex digits")
        if value == _SHA256_OF_NOTHING or not value.strip("0"):
            raise fields.refuse(f"{algorithm} is that of nothing", "WEAK_DIGEST")
    if digest and not set(digest) & set(_HEX) and set(digest) != {"gitCommit"}:
        raise fields.refuse(f"only weak digests: {', '.join(digest)}", "WEAK_DIGEST")
    return digest


def parse_identity(digest: Mapping[str, str], fields: Fields) -> Digests:
    """The digests of a model, all of which must be there."""
    if set(digest) != {"dirHash", "tensorHash1"}:
        raise fields.refuse(
            f"a model needs dirHash and tensorHash1, got {', '.join(digest) or 'none'}"
        )
    return Digests(digest["dirHash"], digest["tensorHash1"])
