"""What one training takes, on a network without weights: its heaviest step, what stays beside it, and what is written.

Casting weights to bf16 and what teachers' answers cost are part of the step that is gone through, as the loss is the
real one. A checkpoint takes no memory of its own on a CPU, where tensors are written as they are; on a GPU its weights
and moments are on the CPU as well while it is written, which is not counted: that is memory of the other sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reuselib.measure.footprint import Footprint, Lesson, of_training
from reuselib.measure.heap import Bytes, of_learned, of_module
from reuselib.measure.memory import num_kept_kernels
from reuselib.network.parts import block_names
from reuselib.training import checks
from reuselib.training.batching import costs, micro_batches, plan_batches, share
from reuselib.training.packing import laid_out
from reuselib.training.pupil import Pupil

if TYPE_CHECKING:
    from torch import nn

    from reuselib.adapter import Attach, Objective
    from reuselib.derivation.sketch import Sketch
    from reuselib.task import Batch
    from reuselib.training.plan import FitPlan

KERNEL_BYTES = 450_000
"""Of what oneDNN makes for one shape of a product in bf16, measured: 0.37 MB in attention, 0.48 MB in linear layers."""
EPOCHS = 3
"""In which shapes of batches are looked for."""
CACHE_BYTES = 8 * 2**30
"""Room for outputs of frozen blocks, as a run has that is told nothing; of more, none are kept."""
WORTH = 0.1
"""Share of the blocks that must be frozen for their outputs to be kept."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a step, in one of several processes with a whole copy of the network each."""

    num_steps: int
    num_trainable: int
    weights: Bytes
    learned: Bytes
    """The parameters that learn; gradients take as much, moments twice."""
    kept: Bytes
    """Besides: the best weights so far, masks of zeros, buckets of gradients that are exchanged."""
    step: Footprint
    """Of an optimizer step."""
    kernels: int
    """Bytes of programs for products in bf16, which stay."""
    checkpoint: int
    """Bytes of what it takes to go on later, on disk."""
    cache: int
    """Bytes of what frozen blocks give for all rows, on disk."""
    sharded: Bytes | None = None
    """All of the above where each process has a share of every weight (FSDP2); None for a single process."""


def of_fit(
    run: Sketch,
    module: nn.Module,
    plan: FitPlan,
    objective: Objective | None,
    attach: Attach | None,
) -> Training:
    """Of a training as `Run.fit` is asked for it."""
    if isinstance(module, Pupil):
        module.has_begun = True  # before that it compares numbers, which are not there
    learned = of_learned(module)
    loss = objective or (lambda net, batch: run.task.loss(run.task.forward(net, batch), batch))
    lesson = Lesson(
        plan=plan, batches=_heaviest(run, plan, attach), loss=loss, precision=_precision(run, plan)
    )
    lesson, step = _step(run, module, lesson)
    buckets = learned if run.num_processes > 1 else Bytes()
    best = learned if plan.early_stopping is not None else Bytes()
    buffers = sum(each.nbytes for each in module.buffers())
    kernels = min(num_kept_kernels(), step.num_products * _num_shapes(run, plan))
    return Training(
        num_steps=checks.num_steps(plan, len(run.splits.train)),
        num_trainable=sum(each.numel() for each in module.parameters() if each.requires_grad),
        weights=of_module(module),
        learned=learned,
        kept=best + buckets + (_masks(module) if run.form == "sparse" else Bytes()),
        step=step,
        kernels=KERNEL_BYTES * kernels if run.device.type == "cpu" else 0,
        checkpoint=3 * learned.total + best.total + buffers,
        cache=_cache(run, module, plan),
        sharded=_sharded(run, module, lesson, step) if run.num_processes > 1 else None,
    )


def _step(run: Sketch, module: nn.Module, lesson: Lesson) -> tuple[Lesson, Footprint]:
    """Of an optimizer step, with its batches packed if the network can be gone through with these."""
    blocks = blocks_of(run, module)
    try:
        return lesson, of_training(module, lesson, run.device, blocks=blocks)
    except Exception:
        if not lesson.plan.packing:
            raise
        # where rows begin is told by numbers; the same rows with padding take no less
        apart = replace(lesson.plan, packing=False)
        lesson = replace(lesson, plan=apart, batches=_heaviest(run, apart, None))
        return lesson, of_training(module, lesson, run.device, blocks=blocks)


def blocks_of(run: Sketch, module: nn.Module) -> list[str]:
    """Names of a network's blocks; none if some of them are looked at by name, as those of some students."""
    if not isinstance(module, Pupil):
        return block_names(module, run.task.head(module))
    if module.sights:
        return []
    network = module.network
    return [f"network.{name}" for name in block_names(network, run.task.head(network))]


def _batches(run: Sketch, plan: FitPlan, epoch: int) -> tuple[list[list[int]], list[int] | None]:
    examples = run.examples("train")
    lengths = costs(examples, run.task)
    grouped = lengths if plan.group_by_length else None
    found = plan_batches(grouped, len(examples), plan.batch_size, seed=run.seed, epoch=epoch)
    return found, lengths


def _heaviest(run: Sketch, plan: FitPlan, attach: Attach | None) -> list[Batch]:
    """This process's part of the micro-batches of the optimizer step with most in it."""
    examples = run.examples("train")
    steps, lengths = _batches(run, plan, 0)

    def weight(rows: Sequence[int]) -> int:
        return len(rows) * max(lengths[row] for row in rows) if lengths else len(rows)

    heaviest = max(steps[: plan.max_steps], key=weight)
    size = checks.num_micro_rows(plan)
    pieces = [share(rows, 0, run.num_processes) for rows in micro_batches(heaviest, size)]
    return [
        {
            **laid_out(plan, run.task, run.processor, [examples[row] for row in rows]),
            **(attach(rows) if attach is not None else {}),
        }
        for rows in pieces
    ]


def _num_shapes(run: Sketch, plan: FitPlan) -> int:
    """How many batches of different shapes a training sees."""
    left = checks.num_steps(plan, len(run.splits.train))
    size, shapes = checks.num_micro_rows(plan), set[tuple[int, int]]()
    for epoch in range(EPOCHS):
        steps, lengths = _batches(run, plan, epoch)
        for rows in steps[: max(0, left)]:
            for piece in micro_batches(rows, size):
                own = share(piece, 0, run.num_processes)
                shapes.add(
                    (len(own), max((lengths[row] for row in own), default=0) if lengths else 0)
                )
        left -= len(steps)
    return len(shapes)


def _precision(run: Sketch, plan: FitPlan) -> str:
    """As the plan has it, also where this machine would refuse it: it may be for another one."""
    from reuselib.training.precision import resolve

    return resolve("auto", run.device) if plan.precision == "auto" else plan.precision


def _masks(module: nn.Module) -> Bytes:
    sizes = (each.numel() for each in module.parameters() if each.requires_grad and each.ndim > 1)
    return sum(map(Bytes.block, sizes), Bytes())


def _cache(run: Sketch, module: nn.Module, plan: FitPlan) -> int:
    """What the last frozen block gives for each position of the rows, if it may be kept, see `training.prefix`."""
    blocks = [module.get_submodule(name) for name in blocks_of(run, module)]
    learning = [any(each.requires_grad for each in block.parameters()) for block in blocks]
    frozen = learning.index(True) if True in learning else len(learning)
    width = getattr(getattr(module, "config", None), "hidden_size", None)
    epochs = checks.num_epochs(plan, len(run.splits.train))
    if not (width and frozen > WORTH * len(blocks)) or epochs < 2 or plan.packing:
        return 0
    if plan.frozen == "train" and _draws(module):
        return 0
    examples = run.examples("train")
    lengths = costs(examples, run.task) or [1] * len(examples)
    size = 4 * width * sum(lengths) * len(run.splits.train) // max(1, len(examples))
    return size if size <= CACHE_BYTES else 0


def _draws(module: nn.Module) -> bool:
    """Whether there is dropout, so that a block gives something else each time."""
    from torch import nn

    return any(isinstance(each, nn.Dropout) and each.p > 0 for each in module.modules())


def _sharded(run: Sketch, module: nn.Module, lesson: Lesson, step: Footprint) -> Bytes:
    """A share of everything that stays, and what is gathered while a unit of the network works.

    That is the unit that works, the next one, and a whole gradient of one; what belongs to no unit is whole from
    the first to the last. In bf16 the gathered weights are, and there are no other copies of them.
    """
    import torch

    from reuselib.training.sharding import Sharding, units

    network = module.network if isinstance(module, Pupil) else module
    found = units(network, run.task.head(network), Sharding())
    inside = {id(each) for unit in found for each in unit.parameters()}
    outside = Bytes.block(sum(e.nbytes for e in module.parameters() if id(e) not in inside))
    unit = max(map(of_module, found), key=lambda each: each.total, default=Bytes())
    gathered, share_of = unit * 3 + outside, of_module(module) + of_learned(module) * 3
    activations = step.parts["activations"]
    if lesson.precision == "bf16":
        gathered = Bytes(gathered.small // 2, gathered.large // 2)
        blocks = blocks_of(run, module)
        step = of_training(module, lesson, run.device, dtype=torch.bfloat16, blocks=blocks)
        activations = step.parts["activations"]
    size = run.num_processes
    shares = Bytes(share_of.small // size, share_of.large // size)
    return shares + gathered + Bytes(small=activations)
