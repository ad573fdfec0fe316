"""From row numbers to a batch, and from a batch to its loss: one way for all who run a network as training does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.training.packing import laid_out

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from reuselib.task import Batch
    from reuselib.training.job import Job
    from reuselib.training.plan import FitPlan


@dataclass(frozen=True)
class Piece:
    """Rows that go through a network together."""

    rows: Sequence[int]
    """Their numbers among the training rows."""
    batch: Batch
    """On the device, with what the objective finds there besides the task's tensors."""
    num_targets: float


def piece_of(plan: FitPlan, job: Job, rows: Sequence[int], device: torch.device) -> Piece:
    """Those training rows as the plan lays them out."""
    examples = [job.train[row] for row in rows]
    batch = laid_out(plan, job.task, job.processor, examples)
    number = float(job.task.num_targets(batch))
    if job.attach is not None:
        batch = {**batch, **job.attach(rows)}
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return Piece(rows, moved, number)


def loss_of(job: Job, module: nn.Module, batch: Batch) -> Tensor:
    """The loss that is trained on, summed over the targets of a batch."""
    if job.objective is not None:
        return job.objective(module, batch)
    return job.task.loss(job.task.forward(module, batch), batch)
