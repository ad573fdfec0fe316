"""How well an edge of the lineage is established, from `proven` down to `broken`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

Tier: TypeAlias = Literal[
    "proven", "replayed", "signed", "recorded", "declared", "inferred", "missing", "broken"
]
"""`proven`: the parents' weights are at hand and the adapter's proof holds. `replayed`: the step was done again and
gave the same digest. `signed`: a key that the verifier trusts signed it, and the bytes match. `recorded`: digests
match, nobody vouches. `declared`: a card or configuration says so. `inferred`: the weights look related. `missing`: a
parent's manifest is not at hand. `broken`: something that was checked does not hold."""

TIERS: tuple[Tier, ...] = get_args(Tier)
"""The strongest first."""


def weakest(tiers: Iterable[Tier]) -> Tier:
    """What a chain of edges is worth: its weakest edge. A chain without edges is `recorded`."""
    return max(tiers, key=TIERS.index, default="recorded")
