"""How far a metric would move if other rows had been drawn: percentile intervals (Efron, 1979).

The same rows are drawn for every model that is measured on them, so the interval of a difference is paired: what
makes a row hard for both models cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.task import Task

LEVEL = 0.95
"""Of all resamples, the share that an interval holds."""
NUM_RESAMPLES = 1000
NUM_CALLS = 200
"""Resamples for a metric that is no function of sums over rows, and so is computed anew for each."""
SEED = 0
_MAX_CELLS = 2**22
"""Resamples times rows that are held at once: 32 MB."""

Interval = tuple[float, float]


def resampled(task: Task, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each metric on each resample of the rows, fp64: [resamples].

    Args:
        task: whose metrics.
        observed: what `Task.observe` gave for all rows.
    """
    import torch

    sums = task.sums(observed)
    found: dict[str, Tensor] = {}
    if sums is not None:
        drawn = [counts @ sums for counts in _counts(len(sums))]
        found = task.metrics_of(torch.cat(drawn))
    missing = [name for name in task.metric_names if name not in found]
    return found | _called(task, observed, missing) if missing else found


def intervals(values: Mapping[str, Tensor]) -> dict[str, Interval]:
    """The middle `LEVEL` of resampled values, by metric; a metric that is not finite somewhere is left out."""
    import torch

    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    found: dict[str, Interval] = {}
    for name, each in values.items():
        if each.isfinite().all():
            low, high = each.quantile(edges).tolist()
            found[name] = (low, high)
    return found


def changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Interval]:
    """Intervals of `after - before`, of two models that were measured on the same rows."""
    both = [name for name in after if name in before and len(after[name]) == len(before[name])]
    return intervals({name: after[name] - before[name] for name in both})


def _indices(num_rows: int, num_resamples: int) -> Iterator[Tensor]:
    """Rows drawn with replacement, some resamples at a time: [resamples, rows]. Always the same ones."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    share = max(1, _MAX_CELLS // num_rows)
    for start in range(0, num_resamples, share):
        size = (min(share, num_resamples - start), num_rows)
        yield torch.randint(num_rows, size, generator=generator)


def _counts(num_rows: int) -> Iterator[Tensor]:
    """How often each row was drawn, fp64: [resamples, rows]."""
    import torch

    for drawn in _indices(num_rows, NUM_RESAMPLES):
        counts = torch.zeros(drawn.shape, dtype=torch.float64)
        yield counts.scatter_add_(1, drawn, torch.ones_like(counts))


def _called(task: Task, observed: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """Metrics that must be computed anew for each resample; those that cannot be are left out."""
    import torch

    num_rows = len(next(iter(observed.values())))
    drawn = [row for rows in _indices(num_rows, NUM_CALLS) for row in rows]
    try:
        every = [task.metrics({k: v[rows] for k, v in observed.items()}) for rows in drawn]
    except Exception:  # noqa: BLE001 - a stranger's metric may not be defined on every draw of rows
        return {}
    return {
        name: torch.tensor([each[name] for each in every], dtype=torch.float64)
        for name in names
        if all(name in each for each in every)
    }
