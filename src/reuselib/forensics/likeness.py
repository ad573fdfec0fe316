"""Two models beside each other as evidence, and what can be concluded: one relation, marked as inferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reuselib.forensics.changes import TensorChange
from reuselib.forensics.matching import Matching
from reuselib.forensics.view import View
from reuselib.lineage.tiers import Tier

RELATED = 0.5
"""Cosine between two matrices above which they are not independent: that of random ones is 0 within
1 over the root of their size."""

Side = Literal["A", "B", ""]


@dataclass(frozen=True)
class Relation:
    """One line about two models, A and B."""

    kind: str
    """`same`, `cast`, `quantized`, `masked`, `cut`, `merged-lora`, `head`, `tuned`, `adapter`, `other-start` or
    `unrelated`."""
    text: str
    child: Side
    """Which of the two looks as if it was made from the other; empty if the weights do not tell."""
    score: float
    """Share of the weights that are alike, from 0 to 1."""
    tier: Tier = "inferred"

    @property
    def is_related(self) -> bool:
        """Whether one seems to come from the other, or both from a third."""
        return self.kind not in ("unrelated", "other-start")


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    one: View
    other: View
    matching: Matching
    changes: Sequence[TensorChange]

    @property
    def pairs(self) -> list[TensorChange]:
        """Weights that are in both, with one shape."""
        return [c for c in self.changes if c.kind in ("identical", "changed", "cast")]

    @property
    def changed(self) -> list[TensorChange]:
        """Those that are not identical."""
        return [c for c in self.pairs if c.kind != "identical"]

    def of(self, *kinds: str) -> list[TensorChange]:
        """Those of certain kinds."""
        return [c for c in self.changes if c.kind in kinds]

    @property
    def score(self) -> float:
        """Share of the elements in matrices of both models that are alike."""
        told = [c for c in self.changes if c.is_matrix and c.kind not in ("added", "removed")]
        near = sum(c.num_elements for c in told if alike(c))
        return near / (sum(c.num_elements for c in told) or 1)


def alike(change: TensorChange) -> bool:
    """Whether a tensor of one model seems to come from that of the other."""
    if change.kind in ("identical", "cast"):
        return True
    if change.kind == "reshaped":
        return change.cut is not None and change.cut.holds
    gap = change.delta
    if gap is None:
        return False
    # of a matrix that is mostly zero now, those weights tell that are left
    kept = gap.num - max(gap.zeros)
    return gap.cosine > RELATED or (kept > 8 and gap.same > 0.9 * kept)
