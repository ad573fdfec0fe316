"""Which tensor of one model is which of another: by name, whatever stands in front, and whatever number blocks have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.forensics.view import Logical

_MAX_PARTS = 3
"""Parts of a name that may be a prefix, as in `base_model.model.bert.`."""
_MAX_PREFIXES = 12
_BLOCK = re.compile(r"^(.*?)\.(\d+)\.(.+)$")


@dataclass(frozen=True)
class Matching:
    """Names of one model beside those of another."""

    pairs: Mapping[str, str]
    """The other's name by the one's."""
    prefixes: tuple[str, str] = ("", "")
    """What each has in front of the names they share."""
    blocks: Mapping[int, int] | None = None
    """If one has fewer blocks, numbered anew: the block of the deeper model by that of the other."""


def match(one: Mapping[str, Logical], other: Mapping[str, Logical]) -> Matching:
    """Pair the weights of two models, each at most once."""
    prefixes = _best_prefixes(one, other)
    pairs = _paired(one, other, *prefixes)
    blocks = _renumbered(one, other, prefixes)
    if blocks:
        return Matching(_renumber(one, other, prefixes, blocks), prefixes, blocks)
    back = prefixes[1], prefixes[0]
    if blocks := _renumbered(other, one, back):
        turned = _renumber(other, one, back, blocks)
        return Matching({mine: theirs for theirs, mine in turned.items()}, prefixes, blocks)
    return Matching(pairs, prefixes)


def block_of(name: str) -> int | None:
    """The number of the block that a tensor is in, by its name; None if it is in none."""
    found = _BLOCK.match(name)
    return int(found[2]) if found and len(found[2]) < 6 else None


def _best_prefixes(one: Mapping[str, Logical], other: Mapping[str, Logical]) -> tuple[str, str]:
    """The two prefixes without which most names and shapes agree; the shortest of those that are equally good."""
    best, chosen = (0, 0, -1000), ("", "")
    stripped = {prefix: _stripped(other, prefix) for prefix in _prefixes(other)}
    for first in _prefixes(one):
        names = _stripped(one, first)
        for second, others in stripped.items():
            common = names.keys() & others.keys()
            same = sum(one[names[key]].shape == other[others[key]].shape for key in common)
            score = (same, len(common), -len(first) - len(second))
            # one name that fits by chance must not rename all the others
            enough = same >= max(2, min(len(one), len(other)) / 4) or not (first or second)
            if common and enough and score > best:
                best, chosen = score, (first, second)
    return chosen


def _prefixes(names: Iterable[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for length in range(1, min(_MAX_PARTS, len(parts) - 1) + 1):
            counts[".".join(parts[:length]) + "."] += 1
    common = sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix))
    return ["", *common[:_MAX_PREFIXES]]


def _stripped(names: Iterable[str], prefix: str) -> dict[str, str]:
    return {name[len(prefix) :]: name for name in names if name.startswith(prefix)}


def _paired(one: Iterable[str], other: Iterable[str], first: str, second: str) -> dict[str, str]:
    """Names that agree without the prefixes, then those that agree as they are."""
    theirs = _stripped(other, second)
    pairs = {name: theirs[key] for key, name in _stripped(one, first).items() if key in theirs}
    taken = set(pairs.values())
    left = set(other) - taken
    pairs.update({name: name for name in one if name not in pairs and name in left})
    return pairs


def _renumbered(
    one: Mapping[str, Logical], other: Mapping[str, Logical], prefixes: tuple[str, str]
) -> dict[int, int] | None:
    """Which block of the one each block of the other is, if their matrices say so and the numbers do not."""
    places = {
        each.identity: found
        for key, name in _stripped(one, prefixes[0]).items()
        if len((each := one[name]).shape) > 1 and (found := _BLOCK.match(key))
    }
    votes: dict[int, Counter[int]] = {}
    sizes: Counter[int] = Counter()
    for key, name in _stripped(other, prefixes[1]).items():
        found = _BLOCK.match(key)
        if not found or len(other[name].shape) < 2 or len(found[2]) > 5:
            continue
        sizes[int(found[2])] += 1
        at = places.get(other[name].identity)
        if at is not None and (at[1], at[3]) == (found[1], found[3]) and len(at[2]) < 6:
            votes.setdefault(int(found[2]), Counter())[int(at[2])] += 1
    best = {
        block: counts.most_common(1)[0][0]
        for block, counts in sorted(votes.items())
        if counts.most_common(1)[0][1] * 2 > sizes[block]
    }
    order = [*best.values()]
    is_rising = all(a < b for a, b in pairwise(order))
    moved = any(block != at for block, at in best.items())
    return best if moved and is_rising and set(best) == set(sizes) else None


def _renumber(
    one: Mapping[str, Logical],
    other: Mapping[str, Logical],
    prefixes: tuple[str, str],
    blocks: Mapping[int, int],
) -> dict[str, str]:
    mine = _stripped(one, prefixes[0])
    pairs: dict[str, str] = {}
    for key, name in _stripped(other, prefixes[1]).items():
        found = _BLOCK.match(key)
        if found and (at := blocks.get(int(found[2]) if len(found[2]) < 6 else -1)) is not None:
            key = f"{found[1]}.{at}.{found[3]}"
        if key in mine:
            pairs[mine[key]] = name
    return pairs
