from __future__ import annotations

import numpy as np
import pytest
from toys import Points, Tokens, points, token_rows

from reuselib.training.batching import costs, micro_batches, plan_batches, share


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("num_rows", [1, 7, 8, 9, 1000])
def test_every_row_is_in_exactly_one_batch(grouped: bool, num_rows: int) -> None:
    lengths = list(np.random.default_rng(0).integers(1, 99, num_rows)) if grouped else None

    batches = plan_batches(lengths, num_rows, 8, seed=1, epoch=2)

    assert sorted(row for batch in batches for row in batch) == list(range(num_rows))
    assert len(batches) == -(-num_rows // 8)
    assert sorted(map(len, batches))[1:] == [8] * (len(batches) - 1)


def test_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    def plan(seed: int, epoch: int) -> list[list[int]]:
        return plan_batches([row % 5 for row in range(64)], 64, 8, seed=seed, epoch=epoch)

    np.random.seed(3)
    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(1, 1)
    assert plan(1, 0) != plan(2, 0)
    assert {frozenset(batch) for batch in plan(1, 0)} != {frozenset(batch) for batch in plan(1, 1)}


def test_next_to_nothing_is_padded_and_batches_are_not_in_order_of_length() -> None:
    lengths = np.random.default_rng(0).lognormal(3, 0.6, 5000).astype(int) + 1

    batches = plan_batches(lengths.tolist(), 5000, 32, seed=0, epoch=0)

    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert lengths.sum() / padded > 0.95
    shuffled = plan_batches(None, 5000, 32, seed=0, epoch=0)
    assert lengths.sum() / sum(lengths[batch].max() * len(batch) for batch in shuffled) < 0.5
    longest = [lengths[batch].max() for batch in batches]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_micro_batches_and_shares_partition_a_batch() -> None:
    rows = list(range(10))

    assert micro_batches(rows, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [share(rows, rank, 3) for rank in range(3)] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


def test_a_task_without_lengths_is_not_asked_for_them() -> None:
    class Guarded(list):
        def __getitem__(self, at: object) -> object:
            raise AssertionError("a row was encoded only to learn its length")

    assert costs(Guarded(points(3)), Points()) is None
    rows = token_rows(5)
    assert costs(rows, Tokens()) == [len(row["input_ids"]) for row in rows]
