"""What came of auditing a model: everything that was looked at, what is not acceptable, and what was not checked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from reuselib.errors import StoreError
from reuselib.lineage.disk import write_file
from reuselib.lineage.policy import Demand

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.evidence.card_check import CardCheck
    from reuselib.evidence.claims import CheckedClaim
    from reuselib.evidence.completeness import Completeness
    from reuselib.evidence.licences import Licences
    from reuselib.evidence.proof import Proof
    from reuselib.lineage.report import Report
    from reuselib.scanning.scan import Scan

Section: TypeAlias = Literal[
    "record", "history", "policy", "scan", "claims", "licences", "card", "completeness"
]


@dataclass(frozen=True)
class Objection:
    """One reason not to accept a model."""

    section: Section
    """Which part of the audit says so."""
    message: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.section}: {self.message}"


@dataclass(frozen=True)
class Edge:
    """One step of the history, with every tier that it reaches."""

    name: str
    """Of the child."""
    dir_hash: str
    relation: str
    tiers: tuple[Demand, ...]
    """The strongest first; none if it is missing or broken."""
    lacking: tuple[Demand, ...] = ()
    """What the policy demands besides."""
    why: str = ""
    """Why doing it again did not show it, where the policy demands that."""

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {**vars(self), "tiers": [*self.tiers], "lacking": [*self.lacking]}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found."""

    name: str
    """Of the model, or of its folder if it has no record."""
    objections: tuple[Objection, ...] = ()
    """Why the model is not accepted, in the order of the audit."""
    report: Report
    """What `verify` says."""
    proof: Proof | None
    """What `prove` says; None if there is nothing to prove."""
    edges: tuple[Edge, ...]
    """The steps of the history, the model's own first."""
    scan: Scan
    claims: tuple[CheckedClaim, ...]
    """Those on the card first, then those of the record."""
    licences: Licences | None
    """Advice; None if there is no record."""
    card: CardCheck
    completeness: Completeness
    unchecked: tuple[str, ...] = ()
    """What a reader might believe was checked, and was not."""

    @property
    def ok(self) -> bool:
        """Whether the model is acceptable."""
        return not self.objections

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "ok": self.ok,
            "name": self.name,
            "objections": [dict(vars(each)) for each in self.objections],
            "record": self.report.to_json(),
            "edges": [each.to_json() for each in self.edges],
            "proof": self.proof.to_json() if self.proof else None,
            "scan": self.scan.to_json(),
            "claims": [each.to_json() for each in self.claims],
            "licences": self.licences.to_json() if self.licences else None,
            "card": self.card.to_json(),
            "completeness": self.completeness.to_json(),
            "unchecked": list(self.unchecked),
        }

    def write(self, path: Path) -> None:
        """Write the findings as JSON, over what is there. The same findings give the same bytes.

        Raises:
            StoreError: the file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=2, sort_keys=True, ensure_ascii=False)
        refuse_unwritable(path)
        write_file(path, f"{text}\n".encode("utf-8", "backslashreplace"), otherwise=_ANOTHER)


_ANOTHER = "name another file"


def refuse_unwritable(path: Path) -> None:
    """Find out that findings cannot be written before they are made, which may take long.

    Raises:
        StoreError: there is no such folder, it is read-only, or `path` is a folder itself.
    """
    folder, why = path.parent, ""
    if path.is_dir():
        why = "it is a folder"
    elif not folder.is_dir():
        why = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        why = f"the folder {folder} is not writable for this user"
    if why:
        raise StoreError(f"cannot write {path}: {why}", expected="a file's name", fix=_ANOTHER)
