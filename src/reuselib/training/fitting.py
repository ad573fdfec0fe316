"""Training a network: everything is set up, the loop runs, and everything is put back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from reuselib.training.accelerating import opened, prepared, settings
from reuselib.training.checks import check, num_epochs
from reuselib.training.device import placed, target_device
from reuselib.training.job import FitResult, Job
from reuselib.training.loop import Loop
from reuselib.training.optimizer import adamw
from reuselib.training.packing import check_packing
from reuselib.training.plan import FitPlan
from reuselib.training.precision import resolve
from reuselib.training.prefix import frozen_prefix
from reuselib.training.search import Site
from reuselib.training.seeds import seeded
from reuselib.training.sharding import asked_for, sharded
from reuselib.training.stages import Stages
from reuselib.training.threads import all_cores
from reuselib.training.zeros import zeros_kept

if TYPE_CHECKING:
    from torch import nn


def fit(module: nn.Module, plan: FitPlan, job: Job) -> FitResult:
    """Train the parameters of `module` that require a gradient, in place.

    The gradient of an optimizer step is that of the mean loss over all targets of its batch, however the batch is
    cut into micro-batches and spread over processes. On a CPU the same arguments give the same weights, bit for bit.
    The module comes back on its device and in its mode.

    Raises:
        TrainingError: the plan cannot be followed, or a loss, gradient or weight is not finite.
        Stopped: only a part of it was to be done again, and is done; the module is as it was then.
        IntegrityError: `BAD_STATE`, the state to begin with is that of another training.
    """
    from reuselib.training.dropout import swift_dropout

    check(plan, job.train, job.validation)
    check_packing(module, plan, job)
    stages = Stages(module, job.groups, num_epochs(plan, len(job.train)))
    precision = resolve(plan.precision, target_device())
    with ExitStack() as stack:
        threads = stack.enter_context(all_cores())
        accelerator = stack.enter_context(opened(precision, job.trackers, job.logging_dir))
        stack.enter_context(stages.learning())
        stack.enter_context(seeded(job.seed, accelerator.process_index))
        how = asked_for(accelerator, plan, job.report)
        if how is None:
            stack.enter_context(placed(module, accelerator.device))
            wrapped = stack.enter_context(prepared(accelerator, module))
        else:
            head = job.task.head(module)
            wrapped = stack.enter_context(sharded(accelerator, module, head, how))
        stack.enter_context(zeros_kept(module, job.sparse))
        if job.trackers:
            accelerator.init_trackers("reuselib", config=settings(plan))
        optimizer = adamw(module, plan, job.groups)
        site = Site(
            module=module,
            plan=plan,
            job=job,
            stages=stages,
            accelerator=accelerator,
            precision=precision,
        )
        prefix = stack.enter_context(frozen_prefix(site))
        dropout = swift_dropout(accelerator.device)
        loop = Loop(module, wrapped, plan, job, stages, accelerator, optimizer, prefix, dropout)
        facts = {
            "precision": precision,
            "device": accelerator.device.type,
            "num_processes": accelerator.num_processes,
            "num_threads": threads,
            **prefix.facts,
            **({} if how is None else how.facts),
        }
        metrics, trail = loop.run()
        spent = loop.recorder.seconds if loop.recorder is not None else 0.0
        if not accelerator.is_main_process:
            trail = None  # where shares are gathered, every process takes part in it
        optimizer.state.clear()  # before whole weights are put in the place of shares
        return FitResult(metrics, facts, trail, spent)
