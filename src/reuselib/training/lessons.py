"""What a student learns from its teachers, and how much each kind of it counts: values only."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Weights of what a student is trained on; each loss is a mean over the targets of a batch."""

    logits: float = 1.0
    """On the distance to the teacher's outputs (Hinton et al., 2015)."""
    task: float = 0.0
    """On the task's own loss, against the labels of the rows."""
    hidden: float = 0.0
    """On the squared distance to the teacher's hidden states (Romero et al., 2015; Jiao et al., 2020)."""
    relations: float = 0.0
    """On the distance of the relations among a row's queries, keys and values (Wang et al., 2020 and 2021)."""

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0:
            raise ValueError(f"weights of losses are not negative, got {self}")
        if not (self.logits or self.hidden or self.relations):
            raise ValueError(
                "no loss needs a teacher: give logits, hidden or relations a weight above 0, or use `finetune`"
            )


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What to keep of a teacher's outputs, for every training row."""

    logits: bool = True
    top_k: int | None = None
    """Of each target's probabilities keep the largest so many, and how much the others have together; null: all
    logits."""
    temperature: float = 1.0
    """At which these probabilities are taken; without `top_k` it has no effect."""
    hidden_states: tuple[int, ...] = ()
    """Blocks of the teacher whose outputs to keep; negative numbers count from the last."""
    relations: tuple[int, ...] = ()
    """Blocks of the teacher whose queries, keys and values to keep."""
