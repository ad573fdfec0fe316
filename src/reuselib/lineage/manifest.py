"""The manifest: the record of one derivation, as an in-toto Statement with a SLSA Provenance predicate.

Parsers of those standards accept it strictly, because all data of our own sits in maps that they
leave free. In bytes it is canonical JSON, and a manifest that is not is refused; so the same
content always has the same digest.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.definition import Definition
from reuselib.lineage.descriptors import Parent, parse_digest, parse_identity
from reuselib.lineage.details import Details
from reuselib.lineage.digest import Digests
from reuselib.lineage.reading import Fields

if TYPE_CHECKING:
    from reuselib.adapter import Json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
MANIFEST = "lineage/manifest.json"
"""Where the manifest is, in a model folder."""


@dataclass(frozen=True)
class Manifest:
    """What a model is, what it was made from, and how.

    `name`, `digests` and `annotations` are about the model; `definition` repeats the derivation,
    `details` tells the circumstances.
    """

    name: str
    digests: Digests
    definition: Definition
    details: Details = field(default_factory=Details)
    annotations: Mapping[str, Json] = field(default_factory=dict)
    """Of the model itself, such as its licence."""

    @classmethod
    def pin(
        cls, name: str, digests: Digests, *, source: str, revision: str | None = None
    ) -> Manifest:
        """The manifest of a base, which has none of its own: what was found where.

        It holds no times and no versions, so whoever pins the same base gets the same manifest.
        """
        recipe = (
            {"source": source} if revision is None else {"source": source, "revision": revision}
        )
        return cls(name, digests, Definition(relation="import", recipe=recipe))

    @classmethod
    def parse(cls, data: bytes, *, path: str = "") -> Manifest:
        """Read a manifest from its bytes.

        Raises:
            IntegrityError: `BAD_JSON`, `UNKNOWN_FIELD`, `WRONG_TYPE`, `WEAK_DIGEST`, `LIMIT`, or
            `BAD_MANIFEST` for
                what is missing or of the wrong kind.
        """
        value = canonical.loads(data, path=path)
        fields = Fields(value, "", ("_type", "subject", "predicateType", "predicate"), path)
        _expect(fields, "_type", STATEMENT_TYPE)
        _expect(fields, "predicateType", PREDICATE_TYPE)
        subjects = fields.objects("subject", ("name", "digest", "annotations"))
        if len(subjects) != 1:
            raise fields.refuse(f"expected one subject, got {len(subjects)}")
        predicate = fields.object("predicate", ("buildDefinition", "runDetails"))
        manifest = cls(
            name=subjects[0].get("name", str),
            digests=parse_identity(parse_digest(subjects[0]), subjects[0]),
            definition=Definition.parse(predicate),
            details=Details.parse(predicate),
            annotations=subjects[0].find("annotations", dict, {}),
        )
        # Says at once that the form is canonical and that nothing in it went unread.
        if manifest.payload() != data:
            raise IntegrityError(
                "BAD_JSON", f"{path or 'manifest'}: not in canonical form (RFC 8785)", path=path
            )
        return manifest

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a model folder; whether the folder matches it is for `verify` to say.

        Raises:
            SourceError: the folder has no manifest, or it cannot be read.
            IntegrityError: the manifest is malformed.
        """
        return cls.parse(read_payload(folder), path=MANIFEST)

    def statement(self) -> dict[str, Json]:
        """As JSON values."""
        subject: dict[str, Json] = {"name": self.name, "digest": dict(self.digests.to_json())}
        if self.annotations:
            subject["annotations"] = dict(self.annotations)
        return {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": self.definition.to_json(),
                "runDetails": self.details.to_json(),
            },
        }

    def payload(self) -> bytes:
        """In bytes, as stored and signed."""
        return canonical.dumps(self.statement())

    @property
    def sha256(self) -> str:
        """The digest of the bytes, by which children refer to this manifest."""
        return hashlib.sha256(self.payload()).hexdigest()

    @property
    def relation(self) -> str:
        """How the model relates to its parent; `import` for a base."""
        return self.definition.relation

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The models it was made from, the base first."""
        return self.definition.parents

    @property
    def derivation_id(self) -> str | None:
        """The key in the store; `None` for a base."""
        internal = self.definition.internal
        return internal.derivation_id if internal else None


def read_payload(folder: Path) -> bytes:
    """The bytes of a folder's manifest, unread."""
    path = folder / MANIFEST
    try:
        if path.exists() and not path.is_file():
            # a pipe of that name would wait for ever
            raise OSError(errno.EINVAL, "it is not a file")
        # One byte more than is accepted, so that a huge file is refused rather than loaded.
        with path.open("rb") as file:
            return file.read(canonical.MAX_BYTES + 1)
    except OSError as error:
        raise SourceError(
            f"{folder} has no readable {MANIFEST}: {error.strerror}",
            expected="a model folder written by reuselib",
            fix="check the path; a model without a manifest can be the base of a derivation",
        ) from error


def _expect(fields: Fields, name: str, value: str) -> None:
    if fields.get(name, str) != value:
        raise fields.refuse(f"{name} is {fields.value[name]!r}, expected {value!r}", "WRONG_TYPE")
