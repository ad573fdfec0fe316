"""Figures of merit over all rows, from logits and targets on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def single_label(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, F1 averaged over the classes that occur, and mean cross-entropy."""
    from torch.nn import functional

    predicted = logits.argmax(dim=-1)
    hits = predicted == labels
    return {
        "accuracy": hits.double().mean().item(),
        "f1": macro_f1(predicted, labels),
        "loss": functional.cross_entropy(logits.double(), labels).item(),
    }


def multi_label(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """F1 over all decisions (micro), share of rows with all labels right, and mean loss a decision."""
    from torch.nn import functional

    predicted = logits > 0
    truth = labels > 0.5
    return {
        "f1": _f1(predicted, truth),
        "exact_match": (predicted == truth).all(dim=-1).double().mean().item(),
        "loss": functional.binary_cross_entropy_with_logits(
            logits.double(), labels.double()
        ).item(),
    }


def regression(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    """Pearson's correlation (0 if either side is constant) and mean squared error."""
    predicted = predicted.double()
    targets = targets.double()
    x = predicted - predicted.mean()
    y = targets - targets.mean()
    scale = (x.norm() * y.norm()).item()
    error = (predicted - targets).square().mean().item()
    return {"pearson": (x @ y).item() / scale if scale > 0 else 0.0, "mse": error, "loss": error}


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """F1 a class, averaged over the classes seen among predictions or labels."""
    import torch

    classes = torch.unique(torch.cat([predicted, labels])).tolist()
    scores = [_f1(predicted == index, labels == index) for index in classes]
    return sum(scores) / len(scores)


def _f1(predicted: Tensor, truth: Tensor) -> float:
    both = (predicted & truth).sum().item()
    total = predicted.sum().item() + truth.sum().item()
    return 2 * both / total if total else 0.0
