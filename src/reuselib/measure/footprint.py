"""How much memory a computation takes, found out without doing it, on the tensors of `ledger`.

Of a deep network only a few of its equal blocks are gone through, see `repeats`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from reuselib.measure.heap import Bytes, of_learned
from reuselib.measure.ledger import carried, noise, row_means, weightless
from reuselib.measure.repeats import alike, only
from reuselib.task import Batch
from reuselib.training import dropout, objectives
from reuselib.training.optimizer import adamw
from reuselib.training.plan import FitPlan

FEW = (2, 3)
"""Equal blocks of the two short networks that a deep one is told from."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a computation takes at its worst moment, besides the tensors that were there before it."""

    peak: Bytes = Bytes()
    parts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of the peak: `gradients`, `moments`, and `activations` for the rest."""
    passing: int = 0
    """Of a training: the most that a pass forward and back takes in small blocks, whose sizes are others with each
    batch."""
    num_products: int = 0
    """Shapes of products in bf16."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One optimizer step."""

    plan: FitPlan
    batches: Sequence[Batch]
    """Its micro-batches, as a process gets them; real tensors, of which only the shapes count."""
    loss: Callable[[nn.Module, Batch], Tensor]
    precision: str = "fp32"


@dataclass(frozen=True)
class _Walk:
    """The most that was alive in each stretch of a computation."""

    stretches: tuple[Bytes, ...]
    num_products: int


def of_training(
    module: nn.Module,
    lesson: Lesson,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    blocks: Sequence[str] = (),
) -> Footprint:
    """Of optimizer steps on a network whose parameters may be on the meta device; it comes back as it was.

    Args:
        module: the network; what requires a gradient learns.
        lesson: a step.
        device: where it would take place.
        dtype: of all weights while they work, instead of a precision that casts them whenever they are used.
        blocks: names of its blocks, see `network.parts.block_names`; of those that are alike a few are gone through.
    """
    walk = _told(module, blocks, lambda: _train(module, lesson, device, dtype))
    *passes, step = walk.stretches
    learned = of_learned(module)
    peak = max((*passes, step), key=lambda each: each.total)
    parts = {"gradients": learned.total, "moments": 2 * learned.total}
    parts["activations"] = max(0, peak.total - 3 * learned.total)
    most = max(passes, key=lambda each: each.total)
    passing = max(0, most.small - 2 * learned.small)
    return Footprint(peak=peak, parts=parts, passing=passing, num_products=walk.num_products)


def of_forward(
    module: nn.Module,
    batch: Batch,
    forward: Callable[[Batch], object],
    device: torch.device,
    *,
    blocks: Sequence[str] = (),
) -> Footprint:
    """Of a call of a network without gradients; otherwise as `of_training`."""

    def call() -> _Walk:
        with weightless(module, device) as (mode, ledger), torch.no_grad():
            module.eval()
            given = forward(carried(mode, ledger, batch, device))
            del given
            return _Walk((*ledger.most(),), 0)

    (peak,) = _told(module, blocks, call).stretches
    return Footprint(peak=peak, parts={"activations": peak.total})


def _train(
    module: nn.Module, lesson: Lesson, device: torch.device, dtype: torch.dtype | None
) -> _Walk:
    """In each pass forward one stretch, back two, for what is alive there only grows or only shrinks; then the step."""
    precision = lesson.precision if dtype is None else "fp32"
    with weightless(module, device, dtype) as (mode, ledger), ExitStack() as stack:
        module.train()
        stack.enter_context(patch.object(dropout, "noise", noise))
        stack.enter_context(patch.object(objectives, "row_means", row_means))
        stack.enter_context(dropout.swift_dropout(device))
        optimizer = adamw(module, lesson.plan)
        _begin(optimizer)
        batches = [carried(mode, ledger, batch, device) for batch in lesson.batches]
        ledger.most()
        stretches: list[Bytes] = []
        for batch in _telling(batches):
            with _autocast(device, precision):
                loss = lesson.loss(module, batch)
            stretches += ledger.most()
            loss.backward()
            del loss
            stretches += ledger.most(parts=2)
        optimizer.step()
        return _Walk((*stretches, *ledger.most()), len(ledger.products))


def _told(module: nn.Module, blocks: Sequence[str], walk: Callable[[], _Walk]) -> _Walk:
    """Go through the network; if many of its blocks are alike, through two with few of them, and tell from these.

    A stretch's most is that at one of its ends, which grows by the same with each block.
    """
    run = alike(module, blocks) if blocks else ()
    few, more = FEW
    if len(run) <= few + more:
        return walk()
    try:
        with only(module, run, few):
            short = walk()
        with only(module, run, more):
            long = walk()
    except Exception:  # noqa: BLE001 - a network may count on having all its blocks
        return walk()
    times = len(run) - few
    return _Walk(
        tuple(
            start + (end - start) * times
            for start, end in zip(short.stretches, long.stretches, strict=True)
        ),
        long.num_products,
    )


def _begin(optimizer: torch.optim.Optimizer) -> None:
    """Have moments from the first step on, as they are there in all others."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _telling(batches: Sequence[Batch]) -> list[Batch]:
    """The largest micro-batch, and before it another one: by the second there are gradients, and no more comes."""
    ordered = sorted(batches, key=lambda batch: sum(each.nbytes for each in batch.values()))
    return ordered[-2:]


def _autocast(device: torch.device, precision: str) -> Any:
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds[precision]) if precision in kinds else nullcontext()
