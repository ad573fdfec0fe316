"""What the parts of a run take besides training: measuring, calibrating, and teaching; estimated."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from reuselib.derivation.trainings import blocks_of
from reuselib.measure.footprint import of_forward
from reuselib.measure.heap import Bytes, of_learned
from reuselib.measure.memory import give_back, resident

if TYPE_CHECKING:
    from torch import nn

    from reuselib.adapter import Adapter
    from reuselib.derivation.plan import Plan
    from reuselib.derivation.sketch import Sketch

MEASURED_ROWS, TAUGHT_ROWS = 64, 32
"""Rows of a batch that is measured, and of one that a teacher answers."""
MAX_OUTPUTS = 2**24
"""Outputs that are kept of a model with an answer for each position, see `measure.probe`; and of the resamples of rows
a quarter as many at once, see `measure.bootstrap`."""
OUTPUT_COPIES = 3
"""Of these while they are compared: as they came, as logarithms of probabilities, and the other model's."""
RESAMPLES = 1000
GRADIENT, GRAM = ("taylor",), ("gptq", "awq", "sparsegpt")
"""Names of ways to look at rows, in the fields `importance` and `method` of adapters, that need gradients of all
weights or, for each layer of a block, the products of its inputs."""
SOLVING = 5
"""Matrices of fp64 that solving for one layer holds, of the size of its products."""


def own_memory(plan: Plan) -> tuple[int, int]:
    """What this process holds before it opens a model, and with what the task's simple method needs besides.

    It has to have loaded all that a run loads, which is seen to here, rows and a small training included.
    """
    import torch
    from torch import nn

    from reuselib.training.accelerating import opened

    with opened("fp32"):  # loads accelerate
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        layer(torch.zeros(4, 8, 32)).sum().backward()
        torch.optim.AdamW(layer.parameters(), fused=True).step()
    give_back()
    before = resident()
    if plan.splits is not None:
        plan.task.reference(plan.splits)
    return before, resident()


def measuring(run: Sketch, module: nn.Module) -> Bytes:
    """A batch of the longest test rows, and what is kept of the outputs."""
    batch = run.longest("test", MEASURED_ROWS)
    task, num_rows = run.task, len(run.splits.test)
    step = of_forward(
        module,
        batch,
        lambda given: task.observe(task.forward(module, given), given),
        run.device,
        blocks=blocks_of(run, module),
    )
    resampling = Bytes.block(8 * min(MAX_OUTPUTS // 4, RESAMPLES * num_rows)) * 3
    outputs = Bytes()
    if task.answers_positions:
        vocabulary = getattr(getattr(module, "config", None), "vocab_size", None) or 1
        positions = sum(task.length(each) for each in run.examples("test"))
        outputs = Bytes.block(4 * min(MAX_OUTPUTS, positions * vocabulary)) * OUTPUT_COPIES
    return _larger(step.peak, resampling + outputs) + kernels(module)


def kernels(module: nn.Module) -> Bytes:
    """What layers of integer weights keep besides their tensors once they have computed something."""
    from reuselib.quantization.kernels import kept_bytes
    from reuselib.quantization.layers import IntegerLinear

    layers = (each for each in module.modules() if isinstance(each, IntegerLinear))
    return sum((Bytes.block(kept_bytes(each)) for each in layers), Bytes())


def calibrating(adapter: Adapter, run: Sketch, module: nn.Module) -> Bytes:
    """Rows on their way through a network, block by block, and what is added up of the inputs of one block's layers."""
    from torch import nn

    ways = {getattr(adapter, each.name) for each in fields(adapter) if each.name in WAYS}  # type: ignore[arg-type]
    largest = max(run.looked, key=lambda batch: next(iter(batch.values())).numel())
    task = run.task
    if ways & {*GRADIENT}:
        from reuselib.measure.footprint import Lesson, of_training
        from reuselib.training.plan import FitPlan

        lesson = Lesson(
            plan=FitPlan(),
            batches=[largest],
            loss=lambda net, batch: task.loss(task.forward(net, batch), batch),
        )
        # an optimizer step without the optimizer's moments
        names = blocks_of(run, module)
        return of_training(module, lesson, run.device, blocks=names).peak - of_learned(module) * 2
    names = blocks_of(run, module)
    step = of_forward(
        module, largest, lambda given: task.forward(module, given), run.device, blocks=names
    ).peak
    blocks = [module.get_submodule(name) for name in names] or [module]
    layers = [[e for e in block.modules() if isinstance(e, nn.Linear)] for block in blocks]
    products = Bytes()
    if ways & {*GRAM}:
        sizes = max(([e.in_features for e in found] for found in layers), key=sum)
        products = sum((Bytes.block(4 * size**2) for size in sizes), Bytes())
        products = products + Bytes.block(8 * max(sizes, default=0) ** 2) * SOLVING
    width = max((e.in_features for found in layers for e in found[:1]), default=0)
    positions = sum(next(iter(batch.values())).numel() for batch in run.looked)
    return step + products + Bytes(small=4 * width * positions * 2)


WAYS = ("method", "importance")


def teaching(run: Sketch, module: nn.Module) -> Bytes:
    """A batch of the longest rows, and a file of answers before it is written; the teacher as wide as the student."""
    from reuselib.training.notebook import FILE_BYTES

    batch, task = run.longest("train", TAUGHT_ROWS), run.task
    names = blocks_of(run, module)
    step = of_forward(
        module, batch, lambda given: task.forward(module, given), run.device, blocks=names
    )
    return step.peak + Bytes(small=min(FILE_BYTES, lesson_bytes(run, module))) * 2


def lesson_bytes(run: Sketch, module: nn.Module) -> int:
    """What teachers say about the rows, on disk: [targets, outputs], or the largest of these; hidden states."""
    task, examples = run.task, run.examples("train")
    scale = len(run.splits.train) / max(1, len(examples))
    positions = sum(task.length(each) for each in examples) * scale
    config = getattr(module, "config", None)
    targets = positions if task.answers_positions else len(run.splits.train)
    outputs = getattr(config, "vocab_size" if task.answers_positions else "num_labels", None) or 1
    width = getattr(config, "hidden_size", None) or 0
    total = 0.0
    for each in run.lessons:
        if each.logits:
            total += targets * (8 * each.top_k if each.top_k else 4 * outputs)
        total += 4 * positions * width * (len(each.hidden_states) + 3 * len(each.relations))
    return round(total + 24 * len(run.splits.train))


def _larger(one: Bytes, other: Bytes) -> Bytes:
    return max(one, other, key=lambda each: each.total)
