from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_squared_error

from reuselib.tasks import scores


def test_single_label_scores_are_those_of_sklearn():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=draw)
    labels = torch.randint(0, 3, (50,), generator=draw)

    found = scores.single_label(logits, labels)

    predicted = logits.argmax(-1)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    chances = logits.double().softmax(-1).numpy()
    assert found["loss"] == pytest.approx(log_loss(labels, chances, labels=range(4)))


def test_multi_label_scores_are_those_of_sklearn():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=draw)
    labels = (torch.rand(50, 4, generator=draw) < 0.3).float()

    found = scores.multi_label(logits, labels)

    predicted = (logits > 0).numpy()
    assert found["f1"] == pytest.approx(f1_score(labels.numpy(), predicted, average="micro"))
    assert found["exact_match"] == pytest.approx(accuracy_score(labels.numpy(), predicted))


def test_regression_scores_are_those_of_scipy_and_sklearn():
    draw = torch.Generator().manual_seed(0)
    targets = torch.randn(50, generator=draw)
    predicted = targets + torch.randn(50, generator=draw)

    found = scores.regression(predicted, targets)

    assert found["pearson"] == pytest.approx(pearsonr(predicted, targets).statistic)
    assert found["mse"] == pytest.approx(mean_squared_error(targets, predicted), rel=1e-5)


def test_a_constant_prediction_correlates_with_nothing():
    found = scores.regression(torch.ones(4), torch.arange(4.0))

    assert found["pearson"] == 0.0
    assert np.isfinite(found["mse"])


def test_losses_of_rows_average_to_the_loss():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 3, generator=draw)
    labels, many = torch.randint(3, (9,), generator=draw), (logits > 0.3).float()
    one = torch.randn(9, generator=draw)

    found = {
        "single_label": (scores.losses(logits, labels), scores.single_label(logits, labels)),
        "multi_label": (
            scores.losses(logits, many, "multi_label"),
            scores.multi_label(logits, many),
        ),
        "regression": (
            scores.losses(logits[:, :1], one, "regression"),
            scores.regression(logits[:, 0], one),
        ),
    }

    for each, told in found.values():
        assert each.shape == (9,)
        assert each.mean().item() == pytest.approx(told["loss"])


def test_sums_of_a_constant_prediction_correlate_with_nothing_too():
    sums = scores.regression_sums(torch.ones(5), torch.arange(5.0)).sum(dim=0)

    assert scores.regression_of(sums)["pearson"] == 0
    assert scores.multi_label_of(torch.zeros(5, dtype=torch.float64))["f1"] == 0
