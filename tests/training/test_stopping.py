from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.errors import TrainingError
from reuselib.training.plan import EarlyStopping
from reuselib.training.stopping import Best


def test_best_weights_and_statistics_come_back() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    best = Best(EarlyStopping(patience=1), "score", greater_is_better=True)
    for epoch, score in enumerate([0.1, 0.9, 0.5]):
        nn.init.constant_(module[0].weight, epoch)
        module[1].running_mean.fill_(epoch)
        best.offer(module, epoch, {"score": score})

    best.restore(module)

    assert (best.epoch, best.value) == (1, 0.9)
    assert module[0].weight.item() == 1
    assert module[1].running_mean.item() == 1


@pytest.mark.parametrize(
    ("plan", "greater", "scores", "stops"),
    [
        (EarlyStopping(patience=1), True, [1, 2, 1, 3, 1, 1], 5),
        (EarlyStopping(patience=0), False, [3, 2, 2], 2),
        (EarlyStopping(patience=0, min_delta=0.5), True, [1, 1.4], 1),
    ],
)
def test_patience_counts_epochs_without_enough_gain(
    plan: EarlyStopping, greater: bool, scores: list[float], stops: int
) -> None:
    module = nn.Linear(1, 1)
    best = Best(plan, "score", greater)

    exhausted = []
    for epoch, score in enumerate(scores):
        best.offer(module, epoch, {"score": score})
        exhausted.append(best.exhausted)

    assert exhausted == [False] * stops + [True]


def test_a_metric_that_is_missing_or_nan_is_an_error() -> None:
    best = Best(EarlyStopping(), "score", greater_is_better=True)

    with pytest.raises(TrainingError, match="no 'score'"):
        best.offer(nn.Linear(1, 1), 0, {"other": 1.0})
    with pytest.raises(TrainingError, match="score is nan"):
        best.offer(nn.Linear(1, 1), 0, {"score": float("nan")})
    assert torch.is_grad_enabled()
