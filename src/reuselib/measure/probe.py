"""The rows that models are measured on, and what a model was measured as."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.measure import latency
from reuselib.measure.bootstrap import resampled
from reuselib.measure.cost import cost
from reuselib.measure.drift import standing
from reuselib.measure.flops import count_flops
from reuselib.measure.latency import Protocol, Timing, alternate
from reuselib.measure.slices import Slices, slices
from reuselib.training.batching import costs
from reuselib.training.evaluate import logits, moved, observe, quiet

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.adapter import Json
    from reuselib.task import Batch, Beliefs, Examples, Processor, Rows, Task

_MAX_OUTPUTS = 2**24
"""Positions times classes that are kept of a model with an answer for each position: 64 MB."""
_MAX_LENGTH = 8192
"""Of a timed batch: its rows times the length of the longest."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model on the test rows. Empty where there are no rows."""

    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """The task's."""
    quality: Mapping[str, float] = field(default_factory=dict[str, float])
    """`ece`, `worst_class` and `worst_slice` where they have a meaning, see `drift.standing`."""
    cost: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    """`num_parameters`, `num_bytes`, `flops` of one row, `latency_p50` and the like in ms."""
    beliefs: Beliefs | None = None
    by_position: bool = False
    """Whether the rows of `beliefs` are positions of the first test rows."""
    losses: Tensor | None = None
    """[rows]"""
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    """Metrics on resamples, see `bootstrap.resampled`."""

    @property
    def more_is_better(self) -> bool:
        """Of `row_scores`."""
        return self._hits is not None

    @property
    def row_scores(self) -> Tensor | None:
        """Of each row: whether all of its answers are right (0 or 1), else its loss."""
        return self.losses if self._hits is None else self._hits

    @cached_property
    def _hits(self) -> Tensor | None:
        beliefs = self.beliefs
        if beliefs is None or beliefs.truth is None:
            return None
        right = beliefs.log_probabilities.argmax(dim=-1) == beliefs.truth
        return right.all(dim=1).double()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Test rows, as one processor encodes them."""

    task: Task
    processor: Processor
    rows: Rows
    columns: Sequence[str]
    """Of the rows."""
    examples: Examples
    """The rows, encoded."""
    protocol: Protocol | None = None
    """How times are taken; None: `latency.STANDARD`."""

    @cached_property
    def slices(self) -> Slices:
        """Parts of the rows."""
        return slices(self.rows, self.task, self.columns, self._lengths)

    def measure(self, module: nn.Module, folder: Path) -> Measured:
        """Everything but times; `folder` holds the model's files."""
        from dataclasses import replace

        observed = observe(module, self.examples, self.task, self.processor)
        found = Measured(
            metrics=self.task.metrics(observed),
            beliefs=self._beliefs(module, observed),
            by_position=self.task.answers_positions,
            losses=self.task.row_losses(observed),
            draws=resampled(self.task, observed),
        )
        size = measured_cost(module, folder)
        size["flops"] = self.flops(module)
        return replace(found, quality=standing(found, self.slices), cost=size)

    def flops(self, module: nn.Module) -> int:
        """Of the row of median length."""
        with quiet(module) as device:
            batch = moved(self.batches[0], device)
            return count_flops(module, lambda: self.task.forward(module, batch))

    def time(self, *modules: nn.Module) -> list[dict[int, Timing]]:
        """Times of each module by batch size, taken in turns."""
        return in_turns([(self, module) for module in modules])

    def describe(self) -> dict[str, Json]:
        """The protocol of times, with the shapes that were fed and the threads that worked."""
        from dataclasses import asdict

        import torch

        from reuselib.training.device import target_device
        from reuselib.training.threads import all_cores

        protocol = self.protocol or latency.STANDARD
        with all_cores() as num_threads:
            threads = num_threads
        shapes: dict[str, Json] = {
            str(size): {name: list(value.shape) for name, value in self.task.inputs(batch).items()}
            for size, batch in zip(protocol.batch_sizes, self.batches, strict=True)
        }
        return {
            **{
                name: list(v) if isinstance(v, tuple) else v for name, v in asdict(protocol).items()
            },
            "threads": threads,
            "device": str(target_device()),
            "torch": torch.__version__,
            "inputs": shapes,
        }

    @cached_property
    def batches(self) -> list[Batch]:
        """What is timed: for each batch size the rows around the median length, so that little is padded."""
        order = list(range(len(self.examples)))
        lengths = self._lengths
        if lengths is not None:
            order.sort(key=lambda row: lengths[row])
        found: list[Batch] = []
        for size in (self.protocol or latency.STANDARD).batch_sizes:
            rows = _middle(order, size)
            longest = max(lengths[row] for row in rows) if lengths is not None else 1
            rows = _middle(rows, max(1, _MAX_LENGTH // longest))
            found.append(self.task.collate([self.examples[row] for row in rows], self.processor))
        return found

    @cached_property
    def _lengths(self) -> list[int] | None:
        return costs(self.examples, self.task)

    def _beliefs(self, module: nn.Module, observed: Mapping[str, Tensor]) -> Beliefs | None:
        """Of all rows or, where each position has an answer, of the positions of the first few."""
        from reuselib.task import Beliefs

        if not self.task.answers_positions:
            return self.task.beliefs(observed)
        num_classes = logits(module, self._first(1), self.task, self.processor).shape[-1]
        lengths, num_rows, left = self._lengths or [], 0, _MAX_OUTPUTS // num_classes
        for length in lengths:
            left -= length
            if left < 0:
                break
            num_rows += 1
        outputs = logits(module, self._first(max(1, num_rows)), self.task, self.processor)
        return Beliefs(outputs.log_softmax(dim=-1)[:, None, :])

    def _first(self, num_rows: int) -> Examples:
        return [self.examples[row] for row in range(num_rows)]

    def call(self, module: nn.Module, batch: Batch) -> Callable[[], None]:
        """A forward pass that ends when the device is done."""
        import torch

        on_gpu = next(iter(batch.values())).is_cuda

        def call() -> None:
            self.task.forward(module, batch)
            if on_gpu:
                torch.cuda.synchronize()

        return call


def in_turns(models: Sequence[tuple[Probe, nn.Module]]) -> list[dict[int, Timing]]:
    """Times of each module on its own probe's rows, by batch size, taken in turns."""
    import torch

    protocol = models[0][0].protocol or latency.STANDARD
    found: list[dict[int, Timing]] = [{} for _ in models]
    with ExitStack() as stack:
        devices = [stack.enter_context(quiet(module)) for _, module in models]
        stack.enter_context(torch.inference_mode())
        for index, size in enumerate(protocol.batch_sizes):
            calls = [
                probe.call(module, moved(probe.batches[index], device))
                for (probe, module), device in zip(models, devices, strict=True)
            ]
            for each, timing in zip(found, alternate(calls, protocol), strict=True):
                each[size] = timing
    return found


def measured_cost(module: nn.Module, folder: Path) -> dict[str, float | str]:
    """Parameters and bytes of one model."""
    size = cost(module, folder, num_trainable=0)
    return {"num_parameters": size.num_parameters, "num_bytes": size.num_bytes}


def times(timings: Mapping[int, Timing]) -> dict[str, float | str]:
    """Figures of one model's times: `latency_p50` of one row, `latency_p50_batch32` of 32, in ms."""
    found: dict[str, float | str] = {}
    for size, timing in timings.items():
        suffix = "" if size == 1 else f"_batch{size}"
        found[f"latency_p50{suffix}"] = timing.percentile(0.5)
        found[f"latency_p95{suffix}"] = timing.percentile(0.95)
    return found


def _middle(order: Sequence[int], size: int) -> list[int]:
    start = max(0, (len(order) - size) // 2)
    return list(order[start : start + size])
