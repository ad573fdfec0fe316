"""The one training loop: run, epoch, step; the same on one CPU core and on many GPUs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError
from reuselib.progress import Progress
from reuselib.training.accelerating import backward, everyones, take_step
from reuselib.training.batching import costs, micro_batches, plan_batches, share
from reuselib.training.checkpointing import Going
from reuselib.training.checks import num_micro_rows, num_steps
from reuselib.training.evaluate import evaluate
from reuselib.training.job import Job
from reuselib.training.optimizer import clip, set_learning_rate
from reuselib.training.pieces import Piece, loss_of, piece_of
from reuselib.training.plan import FitPlan
from reuselib.training.prefix import Prefix
from reuselib.training.replay import Stopped
from reuselib.training.resuming import capture, resume
from reuselib.training.schedule import factor
from reuselib.training.shares import is_sharded, local
from reuselib.training.stages import Stages
from reuselib.training.stopping import Best
from reuselib.training.trail import Recorder
from reuselib.training.watch import Seen, Watch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from reuselib.lineage.trail import Trail
    from reuselib.task import Batch


@dataclass
class Loop:
    """The state of one run, and its three levels: run, epoch, step."""

    module: nn.Module
    wrapped: nn.Module
    """The module as accelerate calls it."""
    plan: FitPlan
    job: Job
    stages: Stages
    accelerator: Accelerator
    optimizer: Optimizer
    prefix: Prefix
    dropout: AbstractContextManager[object]
    """Within, dropout is as the training wants it."""
    watch: Watch = field(default_factory=Watch)
    recorder: Recorder | None = field(init=False, default=None)
    best: Best | None = field(init=False, default=None)
    step: int = 0
    num_rows: int = 0
    loss_sum: float | Tensor = 0.0
    """Loss and targets of the present epoch so far."""
    num_targets: float = 0.0
    lengths: Sequence[int] | None = field(init=False, default=None)
    """What each row costs, if rows of like length are put together."""

    def run(self) -> tuple[dict[str, float], Trail | None]:
        """Train for as long as the plan says; figures, and the trail."""
        started = time.perf_counter()
        self.best = best = self._best()
        self.recorder = self._recorder()  # before anything else changes a weight or a buffer
        self.lengths = costs(self.job.train, self.job.task) if self.plan.group_by_length else None
        going = self._begin()
        if going.metrics is not None:
            return dict(going.metrics), None if self.recorder is None else self.recorder.finish()
        epoch = going.epoch
        for epoch in range(going.epoch, self.stages.num_epochs):
            self._epoch(epoch)
            if best is not None:
                self._validate(best, epoch)
                if best.exhausted and epoch >= self.stages.last_opening:
                    break
        trail = None if self.recorder is None else self.recorder.finish()
        if best is not None:
            best.restore(self.module)
        self._check_weights()
        seconds = going.seconds + time.perf_counter() - started
        metrics = {
            "train_loss": float(self.loss_sum) / self.num_targets,
            "num_steps": float(self.step),
            "num_examples": float(self.num_rows),
            "epochs": float(epoch + 1),
            "seconds": seconds,
            "examples_per_second": self.num_rows / seconds,
        }
        if best is not None:
            metrics |= {"best_epoch": float(best.epoch), f"validation_{best.metric}": best.value}
        if self.job.saver is not None:
            self.job.saver.end(self, metrics)
        return metrics, trail

    def _begin(self) -> Going:
        """Where to go on, with everything as it was there."""
        replay = self.job.replay
        if replay is not None and replay.start is not None:
            return Going(epoch=resume(self, replay.start))
        return Going() if self.job.saver is None else self.job.saver.begin(self)

    def batches(self, epoch: int) -> list[list[int]]:
        """Rows of each step of an epoch."""
        num_rows, size, seed = len(self.job.train), self.plan.batch_size, self.job.seed
        return plan_batches(self.lengths, num_rows, size, seed=seed, epoch=epoch)

    def _epoch(self, epoch: int) -> None:
        learning = self.stages.enter(epoch)
        done = self.step - epoch * self.steps_per_epoch  # more than none if it goes on from a state
        if not done:
            self.loss_sum, self.num_targets = 0.0, 0.0
        total = num_steps(self.plan, len(self.job.train))
        for rows in self.batches(epoch)[done : done + total - self.step]:
            rate = self.plan.learning_rate * factor(self.plan.schedule, self.step, total)
            set_learning_rate(self.optimizer, rate)
            loss, targets = self._gradient(rows, epoch)
            norm = self._clip(learning, rows, epoch)
            take_step(self.accelerator, self.optimizer)
            self.step += 1
            self.num_rows += len(rows)
            self.loss_sum = self.loss_sum + loss * targets
            self.num_targets += targets
            if self.recorder is not None:
                self.recorder.see(self.step, rows, loss, self._keep(total))
                if self.job.replay is not None and self.step == self.job.replay.stop:
                    raise Stopped(self.recorder.finish(), frozenset(self.recorder.rows))
            self._tell(total, loss, rate, norm)
            if self.job.saver is not None:
                self.job.saver.after(self)
        self.watch.look()

    def _gradient(self, rows: Sequence[int], epoch: int) -> tuple[Tensor, float]:
        """Leave the gradient of the mean loss over all targets in `.grad`; return that loss and their number."""
        pieces = [self._piece(piece) for piece in micro_batches(rows, self._num_micro_rows)]
        targets = self._summed(float(sum(piece.num_targets for piece in pieces)))
        if targets <= 0:
            raise TrainingError(f"there is nothing to predict in training rows {list(rows)}")
        # Processes average their gradients, so each counts for as many as there are.
        scale = self.accelerator.num_processes / targets
        loss = None
        for at, piece in enumerate(pieces):
            with self._synchronised(at == len(pieces) - 1), self.prefix.past(piece):
                part = self._loss(piece.batch) * (scale if piece.num_targets else 0.0)
                backward(self.accelerator, part)
            loss = part.detach() if loss is None else loss + part.detach()
        loss = self.accelerator.reduce(loss, "mean") if self._many else loss
        self.watch.see(Seen(self.step, epoch, "the loss", loss, rows))
        return loss, targets

    def _piece(self, rows: Sequence[int]) -> Piece:
        """This process's share of a micro-batch."""
        own = share(rows, self.accelerator.process_index, self.accelerator.num_processes)
        # Without a row of its own, a process still takes part in the exchange of gradients, with a weight of nought.
        piece = piece_of(self.plan, self.job, own or rows[:1], self.accelerator.device)
        return piece if own else replace(piece, num_targets=0.0)

    def _loss(self, batch: Batch) -> Tensor:
        with self.dropout:
            return loss_of(self.job, self.wrapped, batch)

    def _clip(
        self, learning: Sequence[nn.Parameter], rows: Sequence[int], epoch: int
    ) -> Tensor | None:
        limit = self.plan.optimizer.max_grad_norm
        if limit is None:
            return None
        self.accelerator.unscale_gradients(self.optimizer)
        norm = clip(learning, limit)
        # With a loss scale an overflow is expected now and then: the scaler skips that step and lowers the scale.
        if self.accelerator.scaler is None:
            self.watch.see(Seen(self.step, epoch, "the norm of the gradient", norm, rows))
        return norm

    def _tell(self, total: int, loss: Tensor, rate: float, norm: Tensor | None) -> None:
        if self.job.trackers:
            values = {"train/loss": loss.item(), "train/learning_rate": rate}
            if norm is not None:
                values["train/gradient_norm"] = norm.item()
            self.accelerator.log(values, step=self.step)
        if self.job.report is not None and self.accelerator.is_main_process:
            shown = f"loss {loss.item():.4f}" if loss.device.type == "cpu" else ""
            self.job.report(Progress("training", self.step, total, shown))

    def _best(self) -> Best | None:
        if self.plan.early_stopping is None:
            return None
        task = self.job.task
        known = (self.plan.early_stopping, task.metric, task.greater_is_better)
        return Best(*known, learned=tuple(self.stages.opens))

    def _validate(self, best: Best, epoch: int) -> None:
        assert self.job.validation is not None  # `check` saw to it
        metrics = evaluate(self.module, self.job.validation, self.job.task, self.job.processor)
        if self.job.trackers:
            values = {f"validation/{name}": value for name, value in metrics.items()}
            self.accelerator.log(values, step=self.step)
        best.offer(self.module, epoch, metrics)

    def _check_weights(self) -> None:
        """The last step is followed by no loss that would show that it broke the weights."""
        broken = [
            name
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and not local(parameter).isfinite().all()
        ]
        if is_sharded(self.module):
            broken = everyones(broken)
        if broken:
            raise TrainingError(
                f"parameter '{broken[0]}' is not finite after optimizer step {self.step - 1}",
                fix="lower `learning_rate`, or clip with `max_grad_norm`",
            )

    def _recorder(self) -> Recorder | None:
        shares = is_sharded(self.module)
        if not (self.job.trail and (self.accelerator.is_main_process or shares)):
            return None
        replay, total = self.job.replay, num_steps(self.plan, len(self.job.train))
        known = {} if replay is None else {"at": replay.trail.steps, "every": replay.trail.every}
        agree = (lambda every: everyones([every])[0]) if shares else None
        return Recorder(
            self.module, tuple(self.stages.opens), total, len(self.job.train), agree=agree, **known
        )

    def _keep(self, total: int) -> str:
        """Keep the state if it is time to; its digest."""
        keeper = self.job.keeper
        if keeper is None or self._many or self.step not in keeper.steps(total):
            return ""
        return keeper.write(capture(self))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        return math.ceil(len(self.job.train) / self.plan.batch_size)

    @property
    def _many(self) -> bool:
        return self.accelerator.num_processes > 1

    @property
    def _num_micro_rows(self) -> int:
        return num_micro_rows(self.plan)

    def _summed(self, number: float) -> float:
        """The sum over all processes, which agree on what to do after this step along with it."""
        if not self._many:
            return number
        import torch

        saver = self.job.saver
        own = [number, *(() if saver is None else saver.wishes())]
        shared = torch.tensor(own, dtype=torch.float64, device=self.accelerator.device)
        total, *wishes = self.accelerator.reduce(shared, "sum").tolist()
        if saver is not None:
            saver.agreed = (wishes[0] > 0, wishes[1] > 0)
        return total

    @contextmanager
    def _synchronised(self, now: bool) -> Iterator[None]:
        """Exchange gradients between processes in this backward pass, or leave it to a later one."""
        # A gradient that is not exchanged stays whole in each process, which shares are there to avoid.
        if now or not self._many or is_sharded(self.module):
            yield
        else:
            with self.accelerator.no_sync(self.wrapped):
                yield
