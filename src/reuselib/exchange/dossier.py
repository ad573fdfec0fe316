"""Everything that a record says about one model, read once: what each form of export is written from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.chain import read_ancestors, walk
from reuselib.lineage.digest import parse_checksums
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.record import CHECKSUMS, METRICS
from reuselib.model.figures import Figures

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.descriptors import Descriptor, Parent

MAX_SIDECAR = 64 * 2**20
"""Bytes of a list of files; more is no model folder."""
_HUB = "pkg:huggingface/"
_NUMBERS = ("before", "after", "quality", "quality_before", "step")
"""Figures that map names to numbers only."""


@dataclass(frozen=True)
class Dossier:
    """What is known about a model from its record alone: no weights are read."""

    manifest: Manifest
    figures: Figures = field(default_factory=Figures)
    ancestors: Mapping[str, Manifest] = field(default_factory=dict[str, Manifest])
    """Manifests of those that are at hand, by SHA-256, the nearest first."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """SHA-256 of each file of the payload, by relative path."""

    @classmethod
    def read(cls, folder: Path) -> Dossier:
        """Read the record of a model folder. What it says of the weights is for `verify` to check.

        Raises:
            SourceError: the folder has no manifest, or it cannot be read.
            IntegrityError: the manifest or an ancestor is malformed, `MISSING_LINEAGE` if it is that of a base,
                `MISSING_FILE` or `DIGEST_MISMATCH` if a part of the record is not the one that the manifest names.
        """
        manifest = Manifest.read(folder)
        if not manifest.parents:
            raise IntegrityError(
                "MISSING_LINEAGE",
                f"{folder.name} is a base: its manifest tells no derivation",
                path=MANIFEST,
                fix="name the folder of a derived model",
            )
        bound = {item.name: item.digest.get("sha256", "") for item in manifest.details.byproducts}
        metrics, files = (_read(folder, name, bound) for name in (METRICS, CHECKSUMS))
        return cls(
            manifest,
            _figures(metrics),
            walk(manifest, read_ancestors(folder)).manifests,
            parse_checksums(files, path=CHECKSUMS),
        )

    @property
    def task(self) -> str:
        """Kind of the task, such as `text_classification`; empty if none was named."""
        return next(iter(self.manifest.definition.task or {}), "")

    @property
    def licence(self) -> str:
        """As recorded; empty if nothing is."""
        return text(self.manifest.annotations.get("license"))

    @property
    def datasets(self) -> tuple[Descriptor, ...]:
        """The rows that the step learned from or was measured on."""
        roles = ("dataset", "calibration", "eval")
        return tuple(item for item in self.manifest.definition.dependencies if item.role in roles)

    @property
    def parents(self) -> Mapping[str, Parent]:
        """Everything above the model by the manifest's SHA-256, the nearest first, as the nearest child names it."""
        named: dict[str, Parent] = {}
        for each in (self.manifest, *self.ancestors.values()):
            for parent in each.parents:
                named.setdefault(parent.manifest_sha256, parent)
        return named

    @property
    def merged(self) -> tuple[Parent, ...]:
        """The parents whose weights went into the child: the base and, of an average, the other models."""
        base, *others = self.manifest.parents
        return (base, *(parent for parent in others if parent.role == "merge-source"))

    def root(self, parent: Parent) -> Parent:
        """Where the line of first parents above `parent` ends: `parent` itself if its manifest is not at hand."""
        while (known := self.ancestors.get(parent.manifest_sha256)) and known.parents:
            parent = known.parents[0]
        return parent

    @property
    def roots(self) -> tuple[Parent, ...]:
        """The bases that everything began with, each once: those of `merged`, in order."""
        return tuple({root.digests: root for root in map(self.root, self.merged)}.values())


def hub_name(uri: str) -> str:
    """`org/name` of a hub model; any other uri as it is."""
    return uri.removeprefix(_HUB).partition("@")[0] if uri.startswith(_HUB) else uri


def text(value: Json) -> str:
    """A value that should be text; empty if it is none."""
    return value if isinstance(value, str) else ""


def interval(figures: Figures, phase: str, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a metric `before` or `after` the step; None if none was computed."""
    spans = figures.intervals.get(phase)
    span = spans.get(metric) if isinstance(spans, dict) else None
    if not isinstance(span, list) or len(span) != 2:
        return None
    low, high = (each if isinstance(each, int | float) else None for each in span)
    return None if low is None or high is None else (low, high)


def flat(value: Json | Mapping[str, Json], name: str = "") -> Iterator[tuple[str, Json]]:
    """A configuration as single values by dotted name, such as `fit.epochs`; lists stay whole."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}" if name else key)
    elif name:
        yield name, dict(value) if isinstance(value, Mapping) else value


def written(value: Json) -> str:
    """A value as the text that other formats ask for: text as it is, anything else as canonical JSON."""
    return value if isinstance(value, str) else canonical.dumps(value).decode()


def stamp(time: datetime) -> str:
    """A time as the manifest writes it: UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(folder: Path, name: str, bound: Mapping[str, str]) -> bytes:
    """A file of the record, as the manifest names it by digest."""
    try:
        with (folder / name).open("rb") as file:
            data = file.read(MAX_SIDECAR + 1)
    except OSError as error:
        raise IntegrityError(
            "MISSING_FILE", f"{name} cannot be read: {error.strerror}", path=name
        ) from error
    if hashlib.sha256(data).hexdigest() != bound.get(name):
        raise IntegrityError(
            "DIGEST_MISMATCH",
            f"{name} is not the file that the manifest names",
            path=name,
            fix="`reuselib verify` says what else differs",
        )
    return data


def _figures(data: bytes) -> Figures:
    """Strangers write this file too, so what has no meaning here is refused, not ignored."""
    value = canonical.loads(data, path=METRICS)
    empty: dict[str, Any] = Figures().to_json()
    if not isinstance(value, dict) or not value.keys() <= empty.keys():
        raise IntegrityError(
            "UNKNOWN_FIELD", f"{METRICS} is no mapping of known figures", path=METRICS
        )
    for name, found in value.items():
        if not isinstance(found, type(empty[name])) or not all(
            map(_is_number, found.values() if name in _NUMBERS and isinstance(found, dict) else ())
        ):
            raise IntegrityError(
                "BAD_MANIFEST", f"{METRICS}: {name!r} is not of the kind it must be", path=METRICS
            )
    return Figures(**{**empty, **cast("dict[str, Any]", value)})


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
