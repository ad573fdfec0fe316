"""How far two models, machines or trainings are apart: the comparisons behind a reproduction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.evidence.reproduction import WeightsCompared
from reuselib.lineage.inventory import Inventory
from reuselib.lineage.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Json
    from reuselib.lineage.trail import Trail

TOLERANCES: Mapping[str, float] = {"F64": 1e-8, "F32": 1e-4, "F16": 2**-9, "BF16": 2**-6}
"""By type of a tensor: the largest difference that rounding is taken to explain, as a share of the largest value in it.
In 16 bits that is two steps between neighbouring numbers; wider types are given what many steps of training make of
their rounding. Integers and truth values must be the same."""

LOSS_TOLERANCE = 0.02
"""Of a loss: what rounding elsewhere is taken to explain, once weights have moved."""
FIRST_LOSS_TOLERANCE = 1e-3
"""Of the loss of the first step, which rounding in training cannot have touched yet."""

_RUN_FACTS = ("precision", "num_threads", "prefix_cache")


def compare_weights(
    recorded: Path, one: Inventory, again: Path, other: Inventory
) -> WeightsCompared:
    """Compare the recorded weights with those that were made now, two tensors at a time.

    Args:
        recorded: folder of the model.
        one: what it holds.
        again: folder of what was made.
        other: what that holds.
    """
    before = {row.name: row for row in one.rows}
    after = {row.name: row for row in other.rows}
    names = sorted(before.keys() | after.keys(), key=str.encode)
    odd = [name for name in names if not _same(before.get(name), after.get(name))]
    if not odd:
        return WeightsCompared(num_tensors=len(names), num_equal=len(names))
    left, right = Tensors(recorded), Tensors(again)
    worst, gap, allowed, ratio = "", None, None, -1.0
    for name in odd:
        if name not in left or name not in right or left[name].shape != right[name].shape:
            worst, gap, allowed, ratio = name, None, None, math.inf
            break
        apart, limit = _apart(left[name], right[name], before[name].dtype)
        excess = math.inf if before[name].dtype != after[name].dtype else _excess(apart, limit)
        if excess > ratio:
            worst, gap, allowed, ratio = name, apart, limit, excess
    return WeightsCompared(
        num_tensors=len(names),
        num_equal=len(names) - len(odd),
        first=odd[0],
        worst=worst,
        max_abs=gap,
        tolerance=allowed,
        near=ratio <= 1.0,
    )


def _same(one: object, other: object) -> bool:
    keys = ("sha256", "dtype", "shape")
    return all(getattr(one, key, None) == getattr(other, key, None) for key in keys)


def _apart(one: Tensor, other: Tensor, dtype: str) -> tuple[float, float]:
    """The largest difference of a value, and what is allowed."""
    if not one.numel():
        return 0.0, 0.0
    share = TOLERANCES.get(dtype, 0.0)
    gap = (one.double() - other.double()).abs().max().item()
    # NaN in one of them is not near anything
    return (math.inf if math.isnan(gap) else gap), share * one.double().abs().max().item()


def _excess(apart: float, limit: float) -> float:
    if apart == 0:
        return 0.0
    return apart / limit if limit > 0 else math.inf


def environment_differences(
    recorded: Mapping[str, Json], here: Mapping[str, Json]
) -> tuple[str, ...]:
    """In words, what differs between two environments, as `lineage.environment` tells them."""
    before, now = dict(_flat(recorded)), dict(_flat(here))
    return tuple(
        f"{name}: recorded {before.get(name, 'nothing')}, here {now.get(name, 'nothing')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    )


def fact_differences(recorded: Mapping[str, Json], here: Mapping[str, Json]) -> tuple[str, ...]:
    """The same for how the training itself ran."""
    return tuple(
        f"{name}: recorded {recorded[name]}, here {here[name]}"
        for name in _RUN_FACTS
        if name in recorded and name in here and recorded[name] != here[name]
    )


def _flat(values: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@dataclass(frozen=True)
class TrailCompared:
    """Digests of one training against those of another, at the steps that both have."""

    num_compared: int
    last_equal: int | None = None
    first_different: int | None = None
    other_rows: bool = False
    """Whether there, batches were made of other rows: no matter of rounding."""
    losses_near: bool = True


def compare_trails(recorded: Sequence[Trail], again: Sequence[Trail]) -> TrailCompared:
    """Compare what was done again with the record, up to the first difference."""
    number, last = 0, None
    for one, other in zip(recorded, again, strict=False):
        for entry in other.entries:
            known = one.at(entry.step)
            if known is None:
                return TrailCompared(number, last, entry.step, other_rows=True)
            number += 1
            if known.rows != entry.rows:
                return TrailCompared(number, last, entry.step, other_rows=True)
            if known.state != entry.state:
                near = _losses_near(one, other)
                return TrailCompared(number, last, entry.step, losses_near=near)
            last = entry.step
    return TrailCompared(number, last)


def _losses_near(recorded: Trail, again: Trail) -> bool:
    for entry in again.entries:
        known = recorded.at(entry.step)
        limit = FIRST_LOSS_TOLERANCE if entry.step == 1 else LOSS_TOLERANCE
        if known is None or abs(known.loss - entry.loss) > limit * max(abs(known.loss), 1e-3):
            return False
    return True
