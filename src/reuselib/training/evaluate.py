"""What a network says about rows, without learning: observations, metrics, logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reuselib.errors import DataError
from reuselib.training.batching import costs
from reuselib.training.device import placed, target_device
from reuselib.training.shares import is_sharded, looking
from reuselib.training.threads import all_cores
from reuselib.training.world import place

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from reuselib.task import Batch, Examples, Processor, Task


def evaluate(
    module: nn.Module, examples: Examples, task: Task, processor: Processor, batch_size: int = 64
) -> dict[str, float]:
    """The task's metrics over `examples`; with several processes, all of them get the same figures."""
    return task.metrics(observe(module, examples, task, processor, batch_size))


def observe(
    module: nn.Module, examples: Examples, task: Task, processor: Processor, batch_size: int = 64
) -> dict[str, Tensor]:
    """What the task observes of each row: tensors on the CPU, [rows, ...], in the order of `examples`."""
    import torch

    lengths = costs(examples, task)
    order = list(range(len(examples)))
    if lengths is not None:
        order.sort(key=lambda row: -lengths[row])  # like lengths together, the largest batch first
    rank, world_size = place()
    # Whole batches are dealt out, so that a row's padding is the same for any number of processes.
    cuts = _cut(order, batch_size)
    mine = cuts[rank::world_size]
    rows = [row for batch in mine for row in batch]
    parts: list[Mapping[str, Tensor]] = []
    with quiet(module) as device, looking(module):
        for batch in _collated(examples, mine, task, processor):
            batch = moved(batch, device)
            observed = task.observe(task.forward(module, batch), batch)
            parts.append({name: value.cpu() for name, value in observed.items()})
        if is_sharded(module):  # it only runs if all processes run it
            idle = -(-len(cuts) // world_size) - len(mine)
            for batch in _collated(examples, [cuts[0][:1]] * idle, task, processor):
                task.forward(module, moved(batch, device))
    shares = _exchanged((rows, parts), world_size)
    every = [part for _, parts in shares for part in parts]
    back = torch.tensor([row for rows, _ in shares for row in rows]).argsort()
    # Cloned outside of inference mode: metrics may do with it what they like.
    return {name: torch.cat([part[name] for part in every])[back].clone() for name in every[0]}


def logits(
    module: nn.Module, examples: Examples, task: Task, processor: Processor, batch_size: int = 64
) -> Tensor:
    """The network's outputs for `examples`, fp32, on the CPU, in their order.

    Outputs of a row are [rows, ...]. Where each position of a padded row has an output, padded positions are left
    out and the others stand one after another: [positions, ...].
    """
    import torch

    parts: list[Tensor] = []
    batches = _cut(list(range(len(examples))), batch_size)
    with quiet(module) as device, torch.inference_mode():
        for batch in _collated(examples, batches, task, processor):
            batch = moved(batch, device)
            outputs = task.forward(module, batch)
            mask = batch.get("attention_mask")
            if mask is not None and outputs.ndim > 2 and outputs.shape[:2] == mask.shape:
                outputs = outputs[mask.bool()]
            parts.append(outputs.float().cpu())
    return torch.cat(parts).clone()


@contextmanager
def quiet(module: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode and the fastest device within; every module's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    device = target_device()
    module.eval()
    try:
        with all_cores(), placed(module, device):
            yield device
    finally:
        for part, mode in modes:
            part.training = mode


def _collated(
    examples: Examples, batches: Sequence[Sequence[int]], task: Task, processor: Processor
) -> Iterator[Batch]:
    for rows in batches:
        yield task.collate([examples[row] for row in rows], processor)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on that device."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _cut(order: Sequence[int], size: int) -> list[Sequence[int]]:
    if not order:
        raise DataError("there are no rows to evaluate on", expected="at least one row")
    return [order[at : at + size] for at in range(0, len(order), size)]


def _exchanged(own: tuple[list, list], world_size: int) -> list[tuple[list, list]]:
    if world_size == 1:
        return [own]
    import torch.distributed as dist

    shares: list = [None] * world_size
    dist.all_gather_object(shares, own)
    return shares
