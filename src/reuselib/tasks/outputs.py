"""What a configuration says about a network's outputs: how many, their labels, the kind of problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reuselib.errors import SourceError
from reuselib.task import Beliefs

if TYPE_CHECKING:
    from torch import Tensor


def describe(config: Any, labels: Sequence[str], problem_type: str | None = None) -> None:
    """Write labels and problem into a configuration, so that plain transformers knows them too."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = problem_type


def describes_others(config: Any, labels: Sequence[str] | None) -> bool:
    """Whether a configuration is that of a head for other labels, so that its weights mean nothing here.

    Labels that were never named (`LABEL_0`) are taken to be ours, and so are all while ours are not known (None). Case
    does not count.

    Raises:
        SourceError: the same labels in another order, which would turn right answers into wrong ones.
    """
    if labels is None:
        return False
    theirs = [str(config.id2label[index]) for index in sorted(config.id2label)]
    if len(theirs) != len(labels) or theirs == [f"LABEL_{index}" for index in range(len(labels))]:
        return False
    folded = [label.casefold() for label in theirs]
    ours = [label.casefold() for label in labels]
    if folded != ours and sorted(folded) == sorted(ours):
        ordered = [labels[ours.index(label)] for label in folded]
        raise SourceError(
            f"the model has the task's labels in another order: {', '.join(theirs)}",
            expected=f"the task's order: {', '.join(labels)}",
            fix=f"set `labels: [{', '.join(ordered)}]` in the task",
        )
    return folded != ours


def answers(logits: Tensor, labels: Sequence[str], problem: str = "single_label") -> list[Any]:
    """What outputs [rows, labels] say: a label a row, a tuple of labels, or a number."""
    if problem == "regression":
        return logits.flatten().tolist()
    if problem == "multi_label":
        chosen = (logits > 0).tolist()  # a logit above 0 is a probability above a half
        return [tuple(name for name, yes in zip(labels, row, strict=True) if yes) for row in chosen]
    return [labels[index] for index in logits.argmax(-1).tolist()]


def beliefs(logits: Tensor, truth: Tensor, names: Sequence[str], problem: str) -> Beliefs | None:
    """What logits [rows, labels] say about each row; None for a regression.

    Args:
        logits: outputs.
        truth: index of the right label [rows] or, for `multi_label`, 0 or 1 for each [rows, labels].
        names: of the labels.
        problem: single_label, multi_label or regression.
    """
    import torch
    from torch.nn import functional

    if problem == "regression":
        return None
    logits = logits.double()
    if problem == "multi_label":
        both = torch.stack([-logits, logits], dim=-1)
        return Beliefs(functional.logsigmoid(both), (truth > 0.5).long(), tuple(names))
    return Beliefs(logits.log_softmax(dim=-1)[:, None, :], truth[:, None], tuple(names))
