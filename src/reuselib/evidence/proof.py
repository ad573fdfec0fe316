"""What came of proving a model: each step of its history, with its claims, and what all of it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.adapter import Finding
from reuselib.lineage.tiers import Tier, weakest

if TYPE_CHECKING:
    from reuselib.adapter import Json


@dataclass(frozen=True)
class ProvenStep:
    """One step of the history: a child against its parents."""

    name: str
    """Of the child."""
    dir_hash: str
    relation: str
    adapter: str
    findings: tuple[Finding, ...]
    """By claim. Empty if the weights of child or parents are not at hand."""
    tier: Tier
    """`proven`, `broken`, or what is left if it could not be checked."""
    why: str = ""
    """If it is not proven."""

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name != "findings"},
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass(frozen=True)
class Proof:
    """The steps that lead to a model, the model's own first, then its ancestors, the nearest first."""

    name: str
    dir_hash: str
    steps: tuple[ProvenStep, ...]
    roots: Mapping[str, str]
    """Bases that the history ends in: what each is, by its `dirHash`. Nothing is known of their own past."""
    unchecked: tuple[str, ...]
    """What a reader might believe was checked, and was not."""

    @cached_property
    def tier(self) -> Tier:
        """That of the weakest step."""
        return weakest(step.tier for step in self.steps)

    @property
    def ok(self) -> bool:
        """Whether nothing that was checked is wrong."""
        return self.tier != "broken"

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "ok": self.ok,
            "tier": self.tier,
            "name": self.name,
            "dirHash": self.dir_hash,
            "steps": [step.to_json() for step in self.steps],
            "roots": dict(self.roots),
            "unchecked": list(self.unchecked),
        }
