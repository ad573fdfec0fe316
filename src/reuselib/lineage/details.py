"""The circumstances of a derivation: who built it with what, when, and what else it left, SLSA's `runDetails`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reuselib.lineage.descriptors import Descriptor, parse_descriptors
from reuselib.lineage.reading import Fields

if TYPE_CHECKING:
    from reuselib.adapter import Json

BUILDER_ID = "urn:reuselib:builder:local:v1"
_METADATA = ("invocationId", "startedOn", "finishedOn")


@dataclass(frozen=True, kw_only=True)
class Details:
    """The circumstances. All empty for an import, so that it is the same whoever makes it."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that computed the weights."""
    started: datetime | None = None
    """With its time zone; kept to the second, in UTC."""
    finished: datetime | None = None
    invocation_id: str = ""
    byproducts: tuple[Descriptor, ...] = ()
    """The other files of `lineage/`, by digest."""

    def to_json(self) -> dict[str, Json]:
        """As `runDetails`; what is empty is left out."""
        builder: dict[str, Json] = {"id": BUILDER_ID}
        if self.versions:
            builder["version"] = dict(self.versions)
        metadata = {
            "invocationId": self.invocation_id,
            "startedOn": _write_time(self.started),
            "finishedOn": _write_time(self.finished),
        }
        written: dict[str, Json] = {"builder": builder}
        if any(metadata.values()):
            written["metadata"] = {key: item for key, item in metadata.items() if item}
        if self.byproducts:
            written["byproducts"] = [item.to_json() for item in self.byproducts]
        return written

    @classmethod
    def parse(cls, predicate: Fields) -> Details:
        """Read what `to_json` gave."""
        fields = predicate.object("runDetails", ("builder", "metadata", "byproducts"))
        builder = fields.object("builder", ("id", "version"))
        if builder.get("id", str) != BUILDER_ID:
            raise builder.refuse(
                f"builder is {builder.value['id']!r}, expected {BUILDER_ID!r}", "WRONG_TYPE"
            )
        metadata = Fields(fields.find("metadata", dict, {}), "metadata", _METADATA, fields.path)
        return cls(
            versions=builder.texts("version"),
            started=_read_time(metadata, "startedOn"),
            finished=_read_time(metadata, "finishedOn"),
            invocation_id=metadata.find("invocationId", str, ""),
            byproducts=parse_descriptors(fields, "byproducts"),
        )


def _write_time(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else ""


def _read_time(fields: Fields, name: str) -> datetime | None:
    text = fields.optional(name, str)
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise fields.refuse(
            f"{name} {text[:40]!r} is not a time such as 2026-01-31T12:00:00Z"
        ) from None
