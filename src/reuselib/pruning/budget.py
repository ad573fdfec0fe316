"""From scores and a share to what stays: how many units each part loses, and which.

A `Pool` is a part whose units compete with one another: the heads of an attention, the units of an FFN, the hidden
state. First each pool is told how many units it loses (`uniform`, `ranked`, or by a measured profile), then it loses
those of the lowest score; of equals the last. A share is never exceeded: what does not divide is rounded in favour of
what stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from reuselib.errors import IncompatibleStep
from reuselib.network.axes import HIDDEN
from reuselib.network.families import Attention, Block, Family
from reuselib.pruning.importance import Scores

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 1e-9
"""0.3 of 10 is 3, although 0.3 * 10 in floating point may be just below."""


@dataclass(frozen=True)
class Pool:
    """Units that compete with one another."""

    name: str
    scores: Tensor
    """fp64 [units]; what is lowest goes first."""
    places: tuple[str, ...]
    """What loses these units: names of attentions (several if they share one set of heads) or of blocks."""
    num_groups: int = 1
    """Key/value heads; units that follow one another form a group. 1 for what has no groups."""

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.scores)

    @property
    def repeats(self) -> int:
        """Units of a group."""
        return self.size // self.num_groups

    def can_lose(self, number: int, *, evenly: bool = True) -> bool:
        """Whether so many units can go: whole groups or, if `evenly`, as many of each group; something stays."""
        whole = number % self.repeats == 0
        return number < self.size and (whole or (evenly and number % self.num_groups == 0))

    def keep(self, num_lost: int) -> list[int]:
        """The units that stay when so many go, see `can_lose`."""
        if self.num_groups > 1 and num_lost % self.repeats:
            groups = self.scores.reshape(self.num_groups, self.repeats)
            stay = self.repeats - num_lost // self.num_groups
            return [
                group * self.repeats + unit
                for group in range(self.num_groups)
                for unit in _best(groups[group], stay)
            ]
        if self.num_groups in (1, self.size):
            return _best(self.scores, self.size - num_lost)
        groups = self.scores.reshape(self.num_groups, self.repeats).sum(1)
        stay = self.num_groups - num_lost // self.repeats
        return [
            g * self.repeats + unit for g in _best(groups, stay) for unit in range(self.repeats)
        ]


def _best(scores: Tensor, number: int) -> list[int]:
    order = scores.sort(descending=True, stable=True).indices
    return sorted(order[:number].tolist())


def head_pools(found: Family, blocks: Sequence[Block], scores: Scores) -> list[Pool]:
    """One pool for each attention of `blocks`, or for those of a stack that share one set of heads."""
    members: dict[tuple[str, ...], list[Attention]] = {}
    for block in blocks:
        for each in block.attentions:
            shared = (
                (block.stack, each.table.name) if found.table.one_set_of_heads else (each.name,)
            )
            members.setdefault(shared, []).append(each)
    return [
        Pool(
            group[0].heads_axis,
            sum((_head_scores(each, scores) for each in group[1:]), _head_scores(group[0], scores)),
            tuple(each.name for each in group),
            group[0].num_groups,
        )
        for group in members.values()
    ]


def _head_scores(attention: Attention, scores: Scores) -> Tensor:
    """Each query head's score, and its part in that of its key/value head if that has one."""
    own = scores[attention.heads_axis]
    if attention.groups_axis not in scores:
        return own
    return (
        own + scores[attention.groups_axis].repeat_interleave(attention.repeats) / attention.repeats
    )


def unit_pools(blocks: Sequence[Block], scores: Scores) -> list[Pool]:
    """One pool for the FFN of each block."""
    return [
        Pool(block.feed_forward.axis, scores[block.feed_forward.axis], (block.name,))
        for block in blocks
    ]


def hidden_pool(scores: Scores) -> Pool:
    """The one pool of hidden channels."""
    return Pool(HIDDEN, scores[HIDDEN], (HIDDEN,))


def uniform(pools: Sequence[Pool], share: float, round_to: int | None = None) -> dict[str, int]:
    """By pool how many units go, the same share of each.

    Args:
        pools: what competes.
        share: of the units to lose, above 0 and below 1.
        round_to: leave a multiple of so many, rounded up.

    Raises:
        IncompatibleStep: some pool would lose nothing.
    """
    lost = {pool.name: most(pool, share, round_to) for pool in pools}
    for pool in pools:
        if not lost[pool.name]:
            refuse_idle(pool, share, round_to)
    return lost


def most(pool: Pool, share: float, round_to: int | None = None) -> int:
    """How many units of a pool may go without exceeding a share; 0 if none."""
    number = int(pool.size * share + SLACK)
    if round_to:
        stay = -(-(pool.size - number) // round_to) * round_to
        number = max(pool.size - stay, 0)
    return next((n for n in range(number, 0, -1) if pool.can_lose(n)), 0)


def ranked(
    pools: Sequence[Pool], share: float, round_to: int | None = None, *, weighed: bool = True
) -> dict[str, int]:
    """By pool how many units go if the units of all pools are ranked together; each pool keeps at least one.

    Args:
        pools: what competes. Heads go by whole key/value groups.
        share: of all units to lose.
        round_to: leave a multiple of so many in each pool, rounded up.
        weighed: compare scores after dividing them by their pool's mean, because only Taylor's are in one unit.

    Raises:
        IncompatibleStep: nothing would go.
    """
    candidates: list[tuple[float, int, int]] = []
    for at, pool in enumerate(pools):
        num_units = pool.num_groups if pool.num_groups > 1 else pool.size
        scores = pool.scores.reshape(num_units, -1).sum(1)
        scores = scores / scores.mean().clamp_min(1e-300) if weighed else scores
        # the best unit of a pool never goes
        stays = int(scores.sort(descending=True, stable=True).indices[0])
        candidates += [(s, at, -n) for n, s in enumerate(scores.tolist()) if n != stays]
    return spend(pools, (at for _, at, _ in sorted(candidates)), share, round_to)


def spend(
    pools: Sequence[Pool], order: Iterable[int], share: float, round_to: int | None
) -> dict[str, int]:
    """How many units each pool loses if they go in an order, until a share of all is gone.

    Args:
        pools: what competes. Heads go by whole key/value groups.
        order: the pool, by index, that the next unit or group is taken from.
        share: of all units to lose.
        round_to: leave a multiple of so many in each pool, rounded up.

    Raises:
        IncompatibleStep: nothing would go.
    """
    budget = int(sum(pool.size * len(pool.places) for pool in pools) * share + SLACK)
    lost = dict.fromkeys((pool.name for pool in pools), 0)
    for at in order:
        pool = pools[at]
        step = pool.repeats if pool.num_groups > 1 else 1
        if budget < step * len(pool.places):
            break
        lost[pool.name] += step
        budget -= step * len(pool.places)
    if round_to:
        lost = {p.name: most(p, lost[p.name] / p.size, round_to) for p in pools}
    if not any(lost.values()):
        refuse_idle(pools[0], share, round_to)
    return lost


def chosen(pools: Sequence[Pool], lost: Mapping[str, int]) -> dict[str, list[int]]:
    """By place what stays."""
    return {place: pool.keep(lost[pool.name]) for pool in pools for place in pool.places}


def refuse_idle(pool: Pool, share: float, round_to: int | None) -> NoReturn:
    """Say that a share leaves nothing out, and which one would."""
    place, _, units = pool.name.partition(":")
    least = next((n for n in range(1, pool.size) if most(pool, n / pool.size, round_to)), 0)
    raise IncompatibleStep(
        f"a share of {share:g} of the {pool.size} {units or 'channels'} of {place} is none that can go",
        expected=f"a share of at least {least / pool.size:.3g}, which is {least}"
        if least
        else "a part of which some can go and some stay",
        fix="raise the share, lower `round_to`, or leave the option out",
    )
