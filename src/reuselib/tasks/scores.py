"""Figures of merit over all rows, from logits and targets on the CPU.

Each comes twice: over the rows as they are, and as statistics of each row whose sums decide the figures, which is
what intervals are computed from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_CLASSES = 256
"""With more classes than this no statistics are kept for F1, which would take three columns for each."""


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


def single_label_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """[rows, 3 + 3 x classes]: one, hit, loss; and for each class: right, predicted, true. Rows of fp64."""
    import torch
    from torch.nn import functional

    predicted, num_classes = logits.argmax(dim=-1), logits.shape[-1]
    hits = (predicted == labels).double()
    columns = [torch.stack([torch.ones_like(hits), hits, losses(logits, labels)], dim=-1)]
    if num_classes <= MAX_CLASSES:
        said, true = (functional.one_hot(each, num_classes) for each in (predicted, labels))
        columns += [(said * true).double(), said.double(), true.double()]
    return torch.cat(columns, dim=-1)


def single_label_of(sums: Tensor) -> dict[str, Tensor]:
    """What `single_label` gives, from sums of its statistics."""
    count, hits, loss = sums[..., 0], sums[..., 1], sums[..., 2]
    found = {"accuracy": hits / count, "loss": loss / count}
    if sums.shape[-1] > 3:
        both, said, true = sums[..., 3:].chunk(3, dim=-1)
        seen = (said + true).clamp(min=1)
        num_seen = (said + true > 0).sum(dim=-1)
        found["f1"] = (2 * both / seen).sum(dim=-1) / num_seen
    return found


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


def multi_label_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """[rows, 5]: one, twice the labels that are right, labels predicted or true, all right, loss. Rows of fp64."""
    import torch

    predicted, truth = logits > 0, labels > 0.5
    both = 2 * (predicted & truth).double().sum(dim=-1)
    total = predicted.double().sum(dim=-1) + truth.double().sum(dim=-1)
    exact = (predicted == truth).all(dim=-1).double()
    loss = losses(logits, labels, "multi_label")
    return torch.stack([torch.ones_like(loss), both, total, exact, loss], dim=-1)


def multi_label_of(sums: Tensor) -> dict[str, Tensor]:
    """What `multi_label` gives, from sums of its statistics."""
    count, both, total, exact, loss = sums.unbind(dim=-1)
    f1 = both / total.clamp(min=1)
    return {"f1": f1, "exact_match": exact / count, "loss": loss / count}


def regression(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    """Pearson's correlation (0 if either side is constant) and mean squared error."""
    predicted = predicted.double()
    targets = targets.double()
    x = predicted - predicted.mean()
    y = targets - targets.mean()
    scale = (x.norm() * y.norm()).item()
    error = (predicted - targets).square().mean().item()
    return {"pearson": (x @ y).item() / scale if scale > 0 else 0.0, "mse": error, "loss": error}


def regression_sums(predicted: Tensor, targets: Tensor) -> Tensor:
    """[rows, 7]: one, x, y, x^2, y^2, xy, squared error. Rows of fp64.

    x and y are predictions and targets less their means over all rows: the figures do not change by it, and little
    is lost by cancellation.
    """
    import torch

    predicted, targets = predicted.double(), targets.double()
    x, y = predicted - predicted.mean(), targets - targets.mean()
    errors = (predicted - targets).square()
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y, errors], dim=-1)


def regression_of(sums: Tensor) -> dict[str, Tensor]:
    """What `regression` gives, from sums of its statistics."""
    count, x, y, xx, yy, xy, errors = sums.unbind(dim=-1)
    scale = ((xx - x * x / count) * (yy - y * y / count)).clamp(min=0).sqrt()
    pearson = ((xy - x * y / count) / scale).where(scale > 0, 0.0)
    error = errors / count
    return {"pearson": pearson, "mse": error, "loss": error}


def losses(logits: Tensor, labels: Tensor, problem: str = "single_label") -> Tensor:
    """Of each row: cross-entropy, binary cross-entropy averaged over the labels, or squared error; fp64 [rows]."""
    from torch.nn import functional

    logits = logits.double()
    if problem == "single_label":
        return functional.cross_entropy(logits, labels, reduction="none")
    if problem == "multi_label":
        each = functional.binary_cross_entropy_with_logits(
            logits, labels.double(), reduction="none"
        )
        return each.mean(dim=-1)
    return (logits.squeeze(-1) - labels.double()).square()


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
