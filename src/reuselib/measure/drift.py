"""How a model answers differently from another one on the same rows, and where it got worse.

Two models of the same accuracy may be wrong about different rows. What is compared is the answers themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Json
    from reuselib.measure.probe import Measured
    from reuselib.measure.slices import Slices
    from reuselib.task import Beliefs

MIN_ROWS = 5
"""A class or slice with fewer rows is listed, but is never called the worst."""
NUM_CHANGED = 10
"""So many of the most changed rows are listed."""
NUM_BINS = 15
"""Of confidence, for the calibration error."""


def drift(before: Measured, after: Measured, parts: Slices) -> dict[str, Json]:
    """What changed from one model to the other.

    Returns:
        `agreement`: share of rows (of positions, where each has an answer) that get the same answer. `kl`: divergence
        of the other model from the first, KL(first || other), in nats a row. `classes`, `slices`: of each, the rows
        and the score before and after. `rows`: the most changed ones. `worst_class_change` and `worst_slice_change`:
        the largest change for the worse. What the task cannot say is left out.
    """
    found: dict[str, Json] = {}
    one, other = before.beliefs, after.beliefs
    if one is not None and other is not None and _comparable(one, other):
        found["agreement"] = _mean(_same(one, other))
        divergence = kl(one, other)
        if math.isfinite(mean := _mean(divergence)):
            found["kl"] = max(0.0, mean)  # rounding may leave a hair below
        if not before.by_position:
            found["rows"] = _most_changed(divergence, one, other)
    elif before.losses is not None and after.losses is not None:
        found["loss_change"] = _mean((after.losses - before.losses).abs())
    if "rows" not in found and before.losses is not None and after.losses is not None:
        found["rows"] = _most_changed_losses(before.losses, after.losses)
    for name, tables in (("class", classes), ("slice", lambda each: sliced(each, parts))):
        rows = _beside(tables(before), tables(after))
        if rows:
            plural = "classes" if name == "class" else "slices"
            found[plural] = cast("Json", rows)
            sign = 1 if after.more_is_better else -1
            changes = [
                sign * (row["after"] - row["before"]) for row in rows if row["rows"] >= MIN_ROWS
            ]
            if changes:
                found[f"worst_{name}_change"] = min(changes) * sign
    return found


def standing(measured: Measured, parts: Slices) -> dict[str, float]:
    """Figures of one model beyond the task's metrics: `ece`, and the score of its worst class and slice."""
    found: dict[str, float] = {}
    beliefs = measured.beliefs
    if beliefs is not None and beliefs.truth is not None:
        found["ece"] = calibration_error(beliefs)
    for name, rows in (("class", classes(measured)), ("slice", sliced(measured, parts))):
        large = [row["score"] for row in rows if row["rows"] >= MIN_ROWS]
        if large:
            found[f"worst_{name}"] = min(large) if measured.more_is_better else max(large)
    return found


def kl(one: Beliefs, other: Beliefs) -> Tensor:
    """KL(one || other) in nats, summed over a row's decisions: [rows]."""
    log_p, log_q = one.log_probabilities, other.log_probabilities
    terms = log_p.exp() * (log_p - log_q)
    # what is impossible for the first model counts nothing, whatever the other says
    return terms.where(log_p.isfinite(), 0.0).sum(dim=(1, 2)).double()


def calibration_error(beliefs: Beliefs) -> float:
    """Expected calibration error: of decisions grouped by confidence, how far confidence and accuracy lie apart.

    Fifteen groups of equal width, weighted by their size (Guo et al., 2017).
    """
    import torch

    assert beliefs.truth is not None
    top = beliefs.log_probabilities.max(dim=-1)
    confidence = top.values.exp().flatten().double()
    hits = (top.indices == beliefs.truth).flatten().double()
    bins = (confidence * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    gaps = torch.zeros(NUM_BINS, dtype=torch.float64).index_add_(0, bins, confidence - hits)
    return float(gaps.abs().sum() / len(hits))


def classes(measured: Measured) -> list[dict[str, float | str]]:
    """Share of right answers by true class or, where a row has several decisions, by decision."""
    beliefs = measured.beliefs
    if beliefs is None or beliefs.truth is None:
        return []
    hits = (beliefs.log_probabilities.argmax(dim=-1) == beliefs.truth).double()
    if hits.shape[1] > 1:
        named = zip(beliefs.names, hits.T, strict=True)
        return [_line(name, column) for name, column in named]
    truth, hits = beliefs.truth[:, 0], hits[:, 0]
    every = [_line(name, hits[truth == index]) for index, name in enumerate(beliefs.names)]
    return [row for row in every if row["rows"]]


def sliced(measured: Measured, parts: Slices) -> list[dict[str, float | str]]:
    """The score of each slice: share of right answers, or the mean loss."""
    scores = measured.row_scores
    return [] if scores is None else [_line(name, scores[rows]) for name, rows in parts.items()]


def _line(name: str, scores: Tensor) -> dict[str, float | str]:
    return {"name": name, "rows": len(scores), "score": _mean(scores) if len(scores) else 0.0}


def _beside(
    before: Sequence[Mapping[str, float | str]], after: Sequence[Mapping[str, float | str]]
) -> list[dict]:
    earlier = {row["name"]: row["score"] for row in before}
    return [
        {
            "name": row["name"],
            "rows": row["rows"],
            "before": earlier[row["name"]],
            "after": row["score"],
        }
        for row in after
        if row["name"] in earlier
    ]


def _comparable(one: Beliefs, other: Beliefs) -> bool:
    same = one.log_probabilities.shape == other.log_probabilities.shape
    return same and one.names == other.names


def _same(one: Beliefs, other: Beliefs) -> Tensor:
    mine, theirs = (each.log_probabilities.argmax(dim=-1) for each in (one, other))
    return (mine == theirs).all(dim=1).double()


def _most_changed(divergence: Tensor, one: Beliefs, other: Beliefs) -> list[Json]:
    ranked = divergence.argsort(descending=True, stable=True)[:NUM_CHANGED].tolist()
    return [
        {
            "row": row,
            "before": _answer(one, row),
            "after": _answer(other, row),
            "kl": float(divergence[row]),
        }
        for row in ranked
        if divergence[row] > 0 and divergence[row].isfinite()
    ]


def _most_changed_losses(before: Tensor, after: Tensor) -> list[Json]:
    change = (after - before).abs()
    ranked = change.argsort(descending=True, stable=True)[:NUM_CHANGED].tolist()
    return [
        {"row": row, "before": float(before[row]), "after": float(after[row])}
        for row in ranked
        if change[row] > 0 and change[row].isfinite()
    ]


def _answer(beliefs: Beliefs, row: int) -> Json:
    """A class by name; a list of names where there are several decisions."""
    chosen = beliefs.log_probabilities[row].argmax(dim=-1).tolist()
    if len(chosen) == 1:
        return beliefs.names[chosen[0]] if beliefs.names else chosen[0]
    return [name for name, yes in zip(beliefs.names, chosen, strict=True) if yes]


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
