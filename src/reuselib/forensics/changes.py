"""The tensors of two models beside each other, one pair at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reuselib.errors import IntegrityError
from reuselib.forensics.cuts import Cut, is_cut
from reuselib.forensics.deltas import Delta, Rank, delta, is_cast, rank_of_change, steps_apart
from reuselib.forensics.matching import Matching, match
from reuselib.forensics.view import INTEGER, Logical, View

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["identical", "changed", "cast", "reshaped", "added", "removed"]


@dataclass(frozen=True, kw_only=True)
class TensorChange:
    """One weight, and what became of it."""

    kind: Kind
    name: str
    """In the first model; of an added one, in the second."""
    other: str = ""
    """In the second model, if it is another."""
    dtypes: tuple[str, str] = ("", "")
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    delta: Delta | None = None
    """Of a changed or cast one."""
    rank: Rank | None = None
    """Of the change of a matrix."""
    steps: float | None = None
    """Largest distance in steps of the grid, if one of the two is an integer layer."""
    cut: Cut | None = None
    """Of a reshaped one, if it could be looked at."""
    note: str = ""

    @property
    def is_matrix(self) -> bool:
        """Large enough, and of enough dimensions, to tell one model from another."""
        return len(self.shapes[0]) > 1 and self.num_elements >= 64

    @property
    def num_elements(self) -> int:
        """Of the first; of an added one, of the second."""
        count = 1
        for size in self.shapes[0] or self.shapes[1]:
            count *= size
        return count


def changes(one: View, other: View, *, brief: bool = False) -> tuple[Matching, list[TensorChange]]:
    """Compare all weights of two models, at most two of which are in memory at a time.

    Args:
        one: a model.
        other: another.
        brief: leave out what only a reader wants to know: ranks, and how far vectors moved.
    """
    # an update's tensors are none of the model's, whatever they are called
    comparable = one.is_update == other.is_update
    matching = match(one.weights, other.weights) if comparable else Matching({})
    found = [
        _pair(one, other, one.weights[first], other.weights[second], brief)
        for first, second in sorted(matching.pairs.items())
    ]
    found += _alone(one, other, matching)
    return matching, sorted(found, key=lambda change: (change.name, change.kind))


def _alone(one: View, other: View, matching: Matching) -> Iterator[TensorChange]:
    for name in one.weights.keys() - matching.pairs.keys():
        own = one.weights[name]
        yield TensorChange(
            kind="removed", name=name, dtypes=(own.dtype, ""), shapes=(own.shape, ())
        )
    for name in other.weights.keys() - set(matching.pairs.values()):
        own = other.weights[name]
        yield TensorChange(kind="added", name=name, dtypes=("", own.dtype), shapes=((), own.shape))


def _pair(one: View, other: View, first: Logical, second: Logical, brief: bool) -> TensorChange:
    def told(kind: Kind, **found: object) -> TensorChange:
        return TensorChange(
            kind=kind,
            name=first.name,
            other=second.name if second.name != first.name else "",
            dtypes=(first.dtype, second.dtype),
            shapes=(first.shape, second.shape),
            **found,  # type: ignore[arg-type]
        )

    if first.identity == second.identity:
        return told("identical")
    try:
        if first.shape != second.shape:
            return told("reshaped", cut=is_cut(one.read(first.name), other.read(second.name)))
        if not first.num_elements:
            return told("changed", note="it has no elements")
        if brief and len(first.shape) < 2 and first.dtype == second.dtype:
            return told("changed")
        x, y = one.read(first.name), other.read(second.name)
    except IntegrityError as error:
        return told("changed", note=error.what)
    gap = delta(x, y)
    if (
        first.dtype != second.dtype
        and is_cast(x, y)
        and not {*INTEGER} & {first.dtype, second.dtype}
    ):
        return told("cast", delta=gap)
    matrix = x.flatten(1) if x.ndim > 1 else None
    has_rank = not brief and matrix is not None and min(matrix.shape) > 1 and x.is_floating_point()
    return told(
        "changed",
        delta=gap,
        rank=rank_of_change(matrix, y.flatten(1), (first.dtype, second.dtype))
        if has_rank and matrix is not None
        else None,
        steps=_steps(one, other, first, second, (x, y)),
    )


def _steps(
    one: View, other: View, first: Logical, second: Logical, values: tuple[Tensor, Tensor]
) -> float | None:
    integer = [each.dtype in INTEGER for each in (first, second)]
    if sum(integer) != 1:
        return None
    if integer[1]:
        return steps_apart(values[0], values[1], other.scales(second.name))
    return steps_apart(values[1], values[0], one.scales(first.name))
