"""Which rows go together: a pure function of lengths, seed and epoch, the same in every process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reuselib.training.checks import num_steps

if TYPE_CHECKING:
    from reuselib.task import Examples, Task
    from reuselib.training.plan import FitPlan

BATCHES_PER_POOL = 128
"""Rows are sorted by length within pools of so many batches: long enough that next to nothing is padded, short
enough that rows of one length meet other rows in each epoch of a large data set."""
MAX_ROWS, MAX_COST = 32, 4096
"""Rows, and rows times the cost of the longest, of a steady batch."""


def costs(examples: Examples, task: Task) -> list[int] | None:
    """What each example costs; None if all cost the same, and then no example is encoded to find out."""
    from reuselib.task import Task as Contract

    if type(task).length is Contract.length:
        return None
    return [task.length(example) for example in examples]


def plan_batches(
    lengths: Sequence[int] | None, num_rows: int, batch_size: int, *, seed: int, epoch: int
) -> list[list[int]]:
    """Put every row into exactly one batch.

    Args:
        lengths: what each row costs; rows of like length are put together. None for a plain shuffle.
        num_rows: number of rows; the last batch may be short.
        batch_size: rows per batch, over all processes.
        seed: of the run.
        epoch: each epoch has its own order.

    Returns:
        Batches of row numbers, in the order in which they are to be trained on.
    """
    import numpy as np

    random = np.random.default_rng([abs(seed), epoch])
    order = random.permutation(num_rows)
    if lengths is None:
        return [order[at : at + batch_size].tolist() for at in range(0, num_rows, batch_size)]
    cost = np.asarray(lengths)
    pool_size = BATCHES_PER_POOL * batch_size
    batches: list[list[int]] = []
    for start in range(0, num_rows, pool_size):
        pool = order[start : start + pool_size]
        # Stable over a shuffled pool: rows of equal length are in random order, so batches differ between epochs.
        ranked = pool[np.argsort(cost[pool], kind="stable")]
        batches += [
            ranked[at : at + batch_size].tolist() for at in range(0, len(ranked), batch_size)
        ]
    return [batches[at] for at in random.permutation(len(batches))]


def steady_batches(lengths: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
    """Rows of like length together, the longest first, in batches that depend on nothing but lengths.

    For what is computed once and kept: its last bits depend on who shares a batch with whom, and what is kept must be
    what would be computed anew.
    """
    order = sorted(rows, key=lambda row: (-lengths[row], row))
    at = 0
    while at < len(order):
        most = max(1, min(MAX_ROWS, MAX_COST // max(1, lengths[order[at]])))
        yield order[at : at + most]
        at += most


def planned_rows(
    plan: FitPlan, lengths: Sequence[int] | None, num_rows: int, *, seed: int
) -> list[int]:
    """The rows that a training looks at, in order of their numbers: all, unless it ends within the first epoch."""
    steps = num_steps(plan, num_rows)
    batches = plan_batches(lengths, num_rows, plan.batch_size, seed=seed, epoch=0)
    return sorted(row for batch in batches[:steps] for row in batch)


def micro_batches(rows: Sequence[int], num_micro_rows: int) -> list[list[int]]:
    """Cut the rows of one optimizer step into runs of at most `num_micro_rows`."""
    return [list(rows[at : at + num_micro_rows]) for at in range(0, len(rows), num_micro_rows)]


def share(rows: Sequence[int], rank: int, world_size: int) -> list[int]:
    """The rows of a micro-batch that process `rank` works on: strided, so that lengths are spread evenly."""
    return list(rows[rank::world_size])
