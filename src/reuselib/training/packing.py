"""Several short rows laid one after another where they would be padded, without any seeing another.

The rows of an optimizer step stay the same, and so does its loss: packing only changes how they lie in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reuselib.errors import IncompatibleStep, TrainingError
from reuselib.training.evaluate import moved, quiet

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from reuselib.task import Batch, Examples, Processor, Task
    from reuselib.training.job import Job
    from reuselib.training.plan import FitPlan

NUM_LOOKED_AT = 256
"""Rows among which two are looked for."""
TOLERANCE = 1e-4
"""By how much outputs may differ, in shares of the largest, because sums are taken in another order."""


def laid_out(
    plan: FitPlan, task: Task, processor: Processor, examples: Sequence[Mapping[str, Any]]
) -> Batch:
    """A batch of those examples as the plan wants them to lie.

    Raises:
        TrainingError: they are to be packed, and the task does not know how.
    """
    if not plan.packing:
        return task.collate(examples, processor)
    batch = task.pack(examples, processor)
    if batch is None:
        raise TrainingError(
            f"`packing` has no meaning for the task '{task.kind}'",
            expected="a task whose rows are read from left to right, such as causal_lm",
            fix="leave `packing` away",
        )
    return batch


def check_packing(module: nn.Module, plan: FitPlan, job: Job) -> None:
    """See before training that a network keeps packed rows apart; nothing to see for a plan without packing.

    Whether it does is up to the code of each network, and one that does not trains without a word on texts that run
    into one another. So what it gives for two rows in one is compared with what it gives for each alone.

    Raises:
        TrainingError: the task or the objective does not go with packing.
        IncompatibleStep: the network lets a row see the one before it.
    """
    import torch

    if not plan.packing:
        return
    if job.attach is not None:
        raise TrainingError(
            "`packing` does not go with what teachers say, which is kept row by row",
            fix="leave `packing` away",
        )
    rows = two_rows(job.train, job.task)
    packed = laid_out(plan, job.task, job.processor, rows)
    with quiet(module) as device, torch.inference_mode():
        alone = torch.cat(
            [
                _predicted(module, job.task, job.task.collate([row], job.processor), device)
                for row in rows
            ]
        )
        try:
            together = _predicted(module, job.task, packed, device)
        except TypeError as error:  # an input that only packed batches have
            raise _mixed(f"its code does not take packed rows: {error}") from error
    error = float((together - alone).abs().max() / alone.abs().max().clamp(min=1e-30))
    if not error <= TOLERANCE:
        raise _mixed(f"the second of two packed rows comes out differently, by {error:.1e}")


def two_rows(examples: Examples, task: Task) -> list[Mapping[str, Any]]:
    """The shortest two of the first rows, which fit together if any do; the longer one first, as packing puts them."""
    first = [examples[row] for row in range(min(NUM_LOOKED_AT, len(examples)))]
    return sorted(first, key=task.length)[:2][::-1]


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put items into few bins, filled alike, so that little is padded.

    First fit in order of falling length says how many bins it takes: at most 11/9 of the least possible number, and
    one (Johnson, 1973). Each item then goes where least is (Graham, 1969), unless that overfills a bin.

    Args:
        lengths: of the items, each at most `capacity`.
        capacity: what a bin holds.

    Returns:
        The items' numbers, bin by bin.
    """
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    first: list[list[int]] = []
    loads: list[int] = []
    for item in order:
        fits = (at for at, load in enumerate(loads) if load + lengths[item] <= capacity)
        _put(item, next(fits, len(loads)), first, loads, lengths)
    even: list[list[int]] = []
    loads = [0] * len(first)
    for item in order:
        _put(item, loads.index(min(loads)), even, loads, lengths)
    return even if max(loads, default=0) <= capacity else first


def _put(
    item: int, at: int, found: list[list[int]], loads: list[int], lengths: Sequence[int]
) -> None:
    if at == len(found):
        found.append([])
    if at == len(loads):
        loads.append(0)
    found[at].append(item)
    loads[at] += lengths[item]


def _predicted(module: nn.Module, task: Task, batch: Batch, device: torch.device) -> Tensor:
    batch = moved(batch, device)
    return task.predictions(task.forward(module, batch), batch).float()


def _mixed(why: str) -> IncompatibleStep:
    return IncompatibleStep(
        f"this network cannot be trained on packed rows: {why}",
        expected="a network that keeps rows apart by their `position_ids`, as most of transformers do",
        fix="leave `packing` away",
    )
