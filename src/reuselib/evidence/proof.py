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
    compared: int = 0
    """How many of the child's own tensors were held against the parents' values; see `Finding.compared`."""
    num_tensors: int = 0
    """How many the child has of its own; 0 if it could not be compared."""
    whole: bool = True
    """Whether these are all; if not, the others are the parent's, by digest."""
    unlike: tuple[str, ...] = ()
    """What differs from the parent's in files besides the weights, and no claim accounts for."""

    @property
    def extent(self) -> str:
        """In a few words, how much of it was compared; nothing if it could not be."""
        if not self.num_tensors:
            return ""
        text = f"{self.compared} of {self.num_tensors} tensors compared by value"
        if not self.whole:
            return f"{text}; all others are the parent's, by digest"
        if self.compared < self.num_tensors:
            free = "all" if not self.compared else "the others"
            return f"{text}, {free} may be anything that fits"
        return text

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name != "findings"},
            "extent": self.extent,
            "unlike": list(self.unlike),
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
