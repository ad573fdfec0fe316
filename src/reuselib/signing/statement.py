"""What a signature says: which files with which digests. Read so that it has one meaning, or is refused.

The reference reader takes the last of two equal names, follows `..` out of the folder, and is content with an empty
list; whoever holds the key would have to err for that, but errors of signers are no reason to accept anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.digest import SIGNATURE, is_portable
from reuselib.lineage.reading import Fields

if TYPE_CHECKING:
    from reuselib.adapter import Json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_RESOURCES = 200_000
MAX_IGNORED = 10_000
LENGTHS: Mapping[str, int] = {"sha256": 64, "blake2b": 128, "blake3": 64}
"""Hex digits of the digests that OpenSSF Model Signing v1.0 knows."""
_SERIALIZATION = ("method", "hash_type", "allow_symlinks", "ignore_paths", "shard_size")


@dataclass(frozen=True)
class Resource:
    """A file or a piece of one, and its digest as it was signed."""

    label: str
    """As written: the path, of a piece with `:start:end`."""
    file: str
    algorithm: str
    digest: str
    start: int = 0
    end: int | None = None
    """The first byte that is no longer part of it; None for a whole file."""


@dataclass(frozen=True)
class Statement:
    """What was signed."""

    name: str
    """What the signer's folder was called; says nothing about this one."""
    resources: tuple[Resource, ...]
    hash_type: str
    ignored: tuple[str, ...]
    """Paths that the signer left out, with everything below them."""
    serialization: Mapping[str, Json]
    """As written: how files were made into resources."""

    @cached_property
    def files(self) -> frozenset[str]:
        """The files that are vouched for."""
        return frozenset(each.file for each in self.resources)

    def ignores(self, name: str) -> bool:
        """Whether the signer left a file out."""
        parts = name.split("/")
        return any("/".join(parts[:end]) in self._ignored for end in range(1, len(parts) + 1))

    @cached_property
    def _ignored(self) -> frozenset[str]:
        return frozenset(self.ignored)


def parse_statement(payload: bytes) -> Statement:
    """Read the payload of a signature.

    Raises:
        IntegrityError: `BAD_JSON`; `WRONG_TYPE`, another statement; `UNSIGNED`, it is about no file; `UNSAFE_PATH` or
            `BAD_IGNORE`, a path that leads elsewhere; `WEAK_DIGEST`; `LIMIT`; `BAD_SIGNATURE`, the parts contradict
            each other or one is missing.
    """
    fields = _Fields(canonical.loads(payload, path=SIGNATURE), "", None, SIGNATURE)
    _expect(fields, "_type", STATEMENT_TYPE)
    _expect(fields, "predicateType", PREDICATE_TYPE)
    subjects = fields.objects("subject", ("name", "digest", "annotations"))
    if len(subjects) != 1:
        raise fields.refuse(f"expected one subject, got {len(subjects)}")
    predicate = _Fields(fields.get("predicate", dict), "predicate", None, SIGNATURE)
    described = _Fields(
        predicate.get("serialization", dict), "serialization", _SERIALIZATION, SIGNATURE
    )
    hash_type = described.get("hash_type", str)
    hash_type = {"blake2": "blake2b"}.get(hash_type, hash_type)
    if hash_type not in LENGTHS:
        raise described.refuse(f"hash_type {hash_type[:40]!r} is not known", "WEAK_DIGEST")
    if described.find("allow_symlinks", bool, False):
        raise described.refuse("links were followed, whose targets may be anything", "UNSAFE_PATH")
    statement = Statement(
        name=subjects[0].get("name", str),
        resources=tuple(_resources(predicate, described, hash_type)),
        hash_type=hash_type,
        ignored=tuple(_ignored(described)),
        serialization=described.value,
    )
    _check_root(subjects[0], statement)
    return statement


class _Fields(Fields):
    """As its parent; a mistake is one of the signature, and `known` may be left open."""

    def __init__(self, value: Json, where: str, known: Iterable[str] | None, path: str) -> None:
        # Later versions may add fields to the predicate, which readers of this one must ignore.
        open_end = value if known is None and isinstance(value, dict) else ()
        super().__init__(value, where, known or open_end, path)

    def refuse(self, why: str, code: str = "BAD_SIGNATURE") -> IntegrityError:
        return super().refuse(why, code)

    def object(self, name: str, known: Iterable[str]) -> Fields:
        return _Fields(self.get(name, dict), name, known, self.path)

    def objects(self, name: str, known: Iterable[str]) -> list[Fields]:
        return [
            _Fields(item, f"{name}[{index}]", known, self.path)
            for index, item in enumerate(self.find(name, list, []))
        ]


def _expect(fields: Fields, name: str, value: str) -> None:
    if fields.get(name, str) != value:
        raise fields.refuse(f"{name} is {fields.value[name]!r}, expected {value!r}", "WRONG_TYPE")


def _resources(predicate: Fields, described: Fields, hash_type: str) -> Iterable[Resource]:
    method = described.get("method", str)
    if method not in ("files", "shards"):
        raise described.refuse(f"method {method[:40]!r} is not known", "WRONG_TYPE")
    shard_size = _count(described, "shard_size") if method == "shards" else 0
    algorithm = f"{hash_type}-sharded-{shard_size}" if shard_size else hash_type
    items = predicate.objects("resources", ("name", "algorithm", "digest"))
    if not items:
        raise predicate.refuse("it is about no file at all", "UNSIGNED")
    if len(items) > MAX_RESOURCES:
        raise predicate.refuse(f"{len(items)} resources, at most {MAX_RESOURCES}", "LIMIT")
    seen: set[str] = set()
    for item in items:
        label, digest = item.get("name", str), item.get("digest", str)
        if label in seen:
            raise item.refuse(f"{label!r} is named twice")
        seen.add(label)
        used = item.get("algorithm", str)
        if used not in (algorithm, algorithm.replace("blake2b", "blake2")):
            raise item.refuse(f"algorithm {used[:40]!r}, expected {algorithm!r}", "WEAK_DIGEST")
        if not re.fullmatch(f"[0-9a-f]{{{LENGTHS[hash_type]}}}", digest):
            raise item.refuse(f"{digest[:80]!r} is no {hash_type} in lower-case hex digits")
        yield _resource(item, label, digest, shard_size)


def _resource(item: Fields, label: str, digest: str, shard_size: int) -> Resource:
    used = item.get("algorithm", str)
    if not shard_size:
        _check_path(item, label, "UNSAFE_PATH")
        return Resource(label, label, used, digest)
    # A name may hold colons itself, so the last two count; the official package cannot read those.
    found = re.fullmatch(r"([^:]*):(0|[1-9]\d{0,17}):([1-9]\d{0,17})", label)
    if found is None:
        raise item.refuse(f"{label!r} is not `path:start:end`", "WRONG_TYPE")
    file, start, end = found[1], int(found[2]), int(found[3])
    _check_path(item, file, "UNSAFE_PATH")
    if not start < end <= start + shard_size:
        raise item.refuse(f"{label!r} is no piece of at most {shard_size} bytes")
    return Resource(label, file, used, digest, start, end)


def _count(fields: Fields, name: str) -> int:
    """A positive integer, which the format's own writer stores as a float."""
    value = fields.json(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:
        raise fields.refuse(f"{name!r} is not a positive number")
    if value != int(value):
        raise fields.refuse(f"{name!r} is not a whole number")
    return int(value)


def _ignored(described: Fields) -> Iterable[str]:
    paths = described.find("ignore_paths", list, [])
    if len(paths) > MAX_IGNORED:
        raise described.refuse(f"{len(paths)} ignored paths, at most {MAX_IGNORED}", "LIMIT")
    for path in paths:
        if not isinstance(path, str):
            raise described.refuse("an ignored path is no text", "BAD_IGNORE")
        _check_path(described, path.removesuffix("/"), "BAD_IGNORE")
        yield path.removesuffix("/")


def _check_path(fields: Fields, path: str, code: str) -> None:
    """Only paths that stay inside the folder, and mean the same on all systems."""
    if not path or not all(is_portable(part) for part in path.split("/")):
        raise fields.refuse(f"the path {path[:200]!r} leads out of the folder, or nowhere", code)


def _check_root(subject: Fields, statement: Statement) -> None:
    digest = subject.texts("digest")
    root = hashlib.sha256()
    for each in statement.resources:
        root.update(bytes.fromhex(each.digest))
    if digest != {"sha256": root.hexdigest()}:
        raise subject.refuse("the digest is not that of the resources")
