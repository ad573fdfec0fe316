"""What a student may learn from its teachers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What to keep of a teacher's outputs, for every training row."""

    logits: bool = True
    top_k: int | None = None
    """Of each position's logits keep the largest so many, and the probability that is lost; null: all."""
    hidden_states: tuple[int, ...] = ()
    """Blocks of the teacher whose outputs to keep."""
    relations: tuple[int, ...] = ()
    """Blocks of the teacher whose queries, keys and values to keep."""
