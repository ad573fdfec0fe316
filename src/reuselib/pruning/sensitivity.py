"""What leaving parts out costs, measured: for each part and share, how far the outputs move when its units are silent.

A unit is silenced by zeroing the columns that read it, which gives the outputs that cutting it out would give. The
parts are tried one at a time, so the profile says nothing about how they get on together; still, it tells the parts
that bear pruning from those that do not (Li et al., 2017, https://arxiv.org/abs/1608.08710, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError
from reuselib.network.families import family
from reuselib.network.layers import matrix
from reuselib.pruning.budget import Pool, spend

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.adapter import Json, Run
    from reuselib.task import Batch, Task

NAME = "sensitivity"
"""Of the byproduct: `lineage/sensitivity.json`."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of a part's units that are silenced."""
MAX_POSITIONS = 512
"""Of a language model, whose outputs would fill the memory: positions that are looked at, evenly spread."""


def recalled(
    run: Run, setting: Mapping[str, Json], pools: Sequence[Pool]
) -> dict[str, Json] | None:
    """A profile that an earlier step of the chain recorded, if it is of these pools and of this setting.

    The weights may have changed since, by training: the profile is then that of the model before it.

    Args:
        run: of the step.
        setting: what the profile was recorded with, as plain JSON: task, rows and scores.
        pools: what is to be shared out.

    Raises:
        SourceError: see `Run.recall`.
    """
    found = run.recall(NAME)
    same = isinstance(found, dict) and all(found.get(key) == each for key, each in setting.items())
    return found if same and fits(found, pools) else None


def profile(
    module: nn.Module, task: Task, batches: Sequence[Batch], pools: Sequence[Pool]
) -> dict[str, Json]:
    """Measure how outputs move when the units of each pool fall silent, the least important first.

    Args:
        module: the network; left as it was, bit for bit.
        task: what it is for.
        batches: calibration rows.
        pools: what is tried, with the scores that say which units go first; see `budget.head_pools`, `unit_pools`.

    Returns:
        `shares`: as `SHARES`; `pools`: by name of the pool its `units`, and for each share the mean `kl` in nats from
        the answers before to those after, and the `agreement`, the share of answers that stay. Where the output is
        one number, `kl` is that of normal distributions as wide as the outputs spread, and an answer stays if it moves
        by less than half of that.

    Raises:
        IncompatibleStep: the network's family has no table.
        TrainingError: an output is not finite.
    """
    import torch

    columns = _columns(module)
    found: dict[str, Json] = {}
    with torch.no_grad(), _evaluating(module):
        before = _Outputs.of(module, task, batches)
        for pool in pools:
            kls: list[Json] = []
            agreements: list[Json] = []
            for share in SHARES:
                gone = _least_important(pool, share)
                with _silenced(module, [(columns[place], gone) for place in pool.places]):
                    after = _Outputs.of(module, task, batches)
                kls.append(before.kl(after))
                agreements.append(before.agreement(after))
            found[pool.name] = {"units": pool.size, "kl": kls, "agreement": agreements}
    return {"shares": list(SHARES), "pools": found}


def fits(found: Json, pools: Sequence[Pool]) -> bool:
    """Whether a profile, as `profile` gave it and a file kept it, is of these pools."""
    if not isinstance(found, dict) or found.get("shares") != list(SHARES):
        return False
    known = found.get("pools")
    sizes = {pool.name: pool.size for pool in pools}
    if not isinstance(known, dict) or not set(sizes) <= set(known):
        return False
    units = {name: each.get("units") for name, each in known.items() if isinstance(each, dict)}
    return all(units.get(name) == size for name, size in sizes.items())


def shared_out(
    pools: Sequence[Pool], share: float, found: Mapping[str, Json], round_to: int | None = None
) -> dict[str, int]:
    """By pool how many units go, so that together `share` of them do and the outputs move least.

    The KL of a pool is taken to grow along the lower convex hull of what was measured, and those of several pools to
    add up.

    Args:
        pools: what competes. Heads go by whole key/value groups; each pool keeps at least one.
        share: of all units to lose.
        found: what `profile` gave.
        round_to: leave a multiple of so many in each pool, rounded up.

    Raises:
        IncompatibleStep: nothing would go.
    """
    steps: list[tuple[float, int]] = []
    for at, pool in enumerate(pools):
        measured = found["pools"][pool.name]["kl"]
        step = pool.repeats if pool.num_groups > 1 else 1
        slopes = _slopes([pool.size * each for each in (0.0, *SHARES)], [0.0, *measured])
        for number in range(0, pool.size - step, step):
            slope = next(slope for end, slope in slopes if number < end)
            steps.append((slope / len(pool.places), at))
    return spend(pools, (at for _, at in sorted(steps)), share, round_to)


def _slopes(numbers: Sequence[float], costs: Sequence[float]) -> list[tuple[float, float]]:
    """The lower convex hull of measured costs: the end of each piece, and what a unit costs in it."""
    hull: list[tuple[float, float]] = []
    for point in zip(numbers, costs, strict=True):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [(end[0], _slope(start, end)) for start, end in pairwise(hull)]


def _slope(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])


def _least_important(pool: Pool, share: float) -> list[int]:
    """The units that go when about this share does: whole key/value groups."""
    if share == 1.0:
        return list(range(pool.size))
    step = pool.repeats if pool.num_groups > 1 else 1
    number = round(pool.size * share / step) * step
    stay = set(pool.keep(min(number, pool.size - step)))
    return [unit for unit in range(pool.size) if unit not in stay]


def _columns(module: nn.Module) -> dict[str, tuple[str, int]]:
    """By place (see `Pool.places`): the layer that reads its units, and how many columns each has."""
    found: dict[str, tuple[str, int]] = {}
    for block in family(module).blocks:
        found[block.name] = (block.feed_forward.down, 1)
        found.update({each.name: (each.output, each.head_dim) for each in block.attentions})
    return found


@contextmanager
def _silenced(
    module: nn.Module, places: Sequence[tuple[tuple[str, int], Sequence[int]]]
) -> Iterator[None]:
    """Zero the columns that read these units within; every bit is put back afterwards."""
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for (name, width), units in places:
            weight = matrix(module.get_submodule(name)).detach()
            kept.append((weight, weight.clone()))
            weight.unflatten(1, (-1, width))[:, list(units)] = 0
        yield
    finally:
        for weight, value in kept:
            weight.copy_(value)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@dataclass(frozen=True)
class _Outputs:
    """What a network says about rows."""

    values: Tensor
    """Log-probabilities [answers, decisions, classes], or numbers [answers]."""

    @classmethod
    def of(cls, module: nn.Module, task: Task, batches: Sequence[Batch]) -> _Outputs:
        import torch

        limit = -(-MAX_POSITIONS // len(batches))
        values = torch.cat([_answers(task, task.forward(module, b), b, limit) for b in batches])
        if bool(values.isnan().any()):
            raise TrainingError(
                "the network's outputs for the calibration rows are not finite",
                expected="finite outputs",
                fix="look at the rows, and at the model before this step",
            )
        return cls(values)

    def kl(self, other: _Outputs) -> float:
        """Mean over answers, in nats."""
        mine, theirs = self.values.double(), other.values.double()
        if mine.ndim == 1:
            return float(((mine - theirs) / self._spread()).square().mean() / 2)
        terms = (mine.exp() * (mine - theirs)).where(mine.isfinite(), 0.0)
        # rounding may leave less than nothing
        return max(0.0, float(terms.sum(dim=(1, 2)).mean()))

    def agreement(self, other: _Outputs) -> float:
        """Share of answers that are the same."""
        if self.values.ndim == 1:
            moved = (self.values - other.values).abs().double()
            return float((moved < self._spread() / 2).double().mean())
        same = self.values.argmax(dim=-1) == other.values.argmax(dim=-1)
        return float(same.all(dim=1).double().mean())

    def _spread(self) -> float:
        return max(float(self.values.double().std(correction=0)), 1e-12)


def _answers(task: Task, logits: Tensor, batch: Batch, limit: int) -> Tensor:
    """See `_Outputs.values`; at most `limit` positions where each position of a row has an answer."""
    beliefs = None if task.answers_positions else task.beliefs(task.observe(logits, batch))
    if beliefs is not None:
        return beliefs.log_probabilities
    if logits.shape[-1] == 1 or logits.ndim == 1:
        return logits.flatten().float()
    mask = batch.get("attention_mask")
    if mask is not None and logits.shape[:2] == mask.shape:
        logits = logits[mask.bool()]
    logits = logits.reshape(-1, logits.shape[-1])
    logits = logits[:: -(-len(logits) // limit)]
    return logits.float().log_softmax(dim=-1)[:, None]
