"""Looking for a way past the frozen lower part of a network: where to cut, what may stand aside, is it right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError
from reuselib.progress import Progress
from reuselib.training.activations import (
    Activations,
    Part,
    find,
    flat,
    laid_out,
    refuse_lack_of_room,
    write,
)
from reuselib.training.batching import costs, micro_batches, plan_batches, share, steady_batches
from reuselib.training.bypass import Bypass, Reached
from reuselib.training.checks import num_epochs, num_micro_rows
from reuselib.training.cut import Cut, cuts
from reuselib.training.identity import subject
from reuselib.training.pieces import Piece, loss_of, piece_of
from reuselib.training.shares import is_sharded
from reuselib.training.tracing import traced, undisturbed
from reuselib.training.world import await_first

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

    from reuselib.training.activations import Shelf
    from reuselib.training.job import Job
    from reuselib.training.plan import FitPlan
    from reuselib.training.stages import Stages

MIN_SHARE = 0.1
"""Of the operations of a forward pass that must lie below the cut."""
MIN_INTENSITY = 50.0
"""Operations for each byte that is kept: below, computing is as fast as reading."""
SAME_LOSS = 1e-6
"""By how much the loss may differ when the upper part runs alone, on the very values that it gets from the lower."""
SAME_VALUES = {"fp32": 1e-5, "bf16": 2**-5, "fp16": 2**-8}
"""By how much a value that was kept may differ, in shares of the largest in its batch: it was computed among other
rows, with other padding, so that rounding fell otherwise. In short formats that is four units in the last place; six
blocks of a small encoder were seen to differ by less than one."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A training that is about to begin."""

    module: nn.Module
    plan: FitPlan
    job: Job
    stages: Stages
    accelerator: Accelerator
    precision: str


@dataclass(frozen=True)
class Way:
    """Past the lower part of a network."""

    bypass: Bypass
    activations: Activations
    positional: bool
    """Whether each position of a row has a value, and padding has none."""

    def past(self, piece: Piece) -> AbstractContextManager[None]:
        """Within, the upper part alone runs on that piece."""
        device = next(iter(piece.batch.values())).device
        values = self.activations.of(piece.rows).to(device, non_blocking=True)
        mask = piece.batch["attention_mask"] if self.positional else None
        return self.bypass.opened(laid_out(values, mask))


@dataclass(frozen=True)
class Sample:
    """One batch, as the whole network sees it."""

    piece: Piece
    loss: float
    value: Tensor
    """That reaches the cut."""

    @property
    def mask(self) -> Tensor | None:
        """Which positions of the value are no padding; None if it has no positions [rows, tokens, ...]."""
        mask = self.piece.batch.get("attention_mask")
        if mask is None or self.value.ndim < 3 or self.value.shape[:2] != mask.shape:
            return None
        return mask

    @property
    def values(self) -> Tensor:
        """Those positions, one after another."""
        return flat(self.value, self.mask)[0]


def may_keep(site: Site) -> bool:
    """Whether the plan alone allows to keep what the lower part gives.

    A packed row is no row of the data, so nothing could be looked up for it.
    """
    job = site.job
    return (
        job.shelf is not None
        and num_epochs(site.plan, len(job.train)) > 1
        and not site.plan.packing
        and len(job.train) > 1
        and not is_sharded(site.module)  # which would have to be gathered by all, block by block
    )


@dataclass
class Search:
    """From a training that is about to begin to a way that it can go."""

    site: Site
    said: str = ""
    """What came of it, for the record; nothing if nothing was to be expected."""

    def go(self) -> Way | None:
        """The way, if there is one; sets the modules that `frozen: eval` keeps still.

        Raises:
            TrainingError: `frozen: eval` has no effect.
            StoreError: there is no room for what is to be kept.
        """
        site = self.site
        found = self._cuts()
        if site.plan.frozen == "eval":
            if not found or not found[0].below:
                raise TrainingError(
                    "`frozen: eval` has no effect: nothing is done before the first weight that learns is used",
                    expected="frozen blocks below those that learn",
                    fix="leave `frozen` away, or train less, such as `block[-2:]` and the head",
                )
            site.stages.still = tuple(map(site.module.get_submodule, sorted(found[0].below)))
            found = self._cuts()
        if not may_keep(site):
            return None
        for cut in filter(self._pays, found):
            samples = self._samples(cut)
            bypass = self._bypass(cut, samples)
            if bypass is not None:
                return self._kept(bypass, samples)
        return None

    def _cuts(self) -> list[Cut]:
        """Where the network could be cut."""
        site, job = self.site, self.site.job
        # Two short rows, so that those of a usual batch are of another size.
        piece = piece_of(site.plan, job, self._by_length[:2], site.accelerator.device)
        site.stages.enter(0)
        trace = traced(lambda: job.task.forward(site.module, piece.batch), site.module)
        head = job.task.head(site.module)
        return list(cuts(site.module, trace, site.stages.opens, head))

    def _pays(self, cut: Cut) -> bool:
        """Whether what lies below gives the same whenever it runs, and is worth not to be run."""
        intensity = cut.at.flops / max(cut.value.nbytes, 1)
        return cut.is_steady and cut.share >= MIN_SHARE and intensity >= MIN_INTENSITY

    def _samples(self, cut: Cut) -> list[Sample]:
        """The first batch and the last of an epoch, and the longest rows, through the whole network."""
        site, job, accelerator = self.site, self.site.job, self.site.accelerator
        lengths = self._lengths if site.plan.group_by_length else None
        size = site.plan.batch_size
        batches = plan_batches(lengths, len(job.train), size, seed=job.seed, epoch=0)
        chosen = [
            micro_batches(each, num_micro_rows(site.plan))[0] for each in (batches[0], batches[-1])
        ]
        samples: list[Sample] = []
        watching = Bypass(cut)
        with watching.installed():
            for rows in (*chosen, self._by_length[-2:]):
                own = share(rows, accelerator.process_index, accelerator.num_processes) or rows[:1]
                piece = piece_of(site.plan, job, own, accelerator.device)
                loss = self._loss(piece)
                assert watching.caught is not None  # the cut was seen to be called
                samples.append(Sample(piece, loss, watching.caught))
        return samples

    def _bypass(self, cut: Cut, samples: Sequence[Sample]) -> Bypass | None:
        """What may stand aside: all that is done before the cut, else the blocks alone; None if not even these.

        The rest of a network often needs the size of what its embeddings give, but hardly ever what its blocks do.
        """
        for aside in (cut.finished, cut.blocks):
            bypass = Bypass(cut, aside)
            if aside and self._agreed(all(self._is_same(bypass, each) for each in samples)):
                return bypass
        return None

    def _is_same(self, bypass: Bypass, sample: Sample) -> bool:
        """Whether the upper part alone gives the loss of the whole, though all that stands aside is poisoned."""
        first = bypass.cut.value
        if sample.mask is None and sample.value.shape[1:] != first.shape[1:]:
            return False  # rows of unequal size, and nothing says which part of them is padding
        if len(sample.value) != len(sample.piece.rows):
            return False
        bypass.poisoned = True
        try:
            with bypass.installed(), bypass.opened(laid_out(sample.values, sample.mask)):
                loss = self._loss(sample.piece)
        except Exception:  # noqa: BLE001
            # What a network does with values of a wrong size is up to its code. The whole of it worked on these rows,
            # so nothing but the bypass is at fault.
            return False
        finally:
            bypass.poisoned = False
        return abs(loss - sample.loss) <= SAME_LOSS * abs(sample.loss)

    def _loss(self, piece: Piece) -> float:
        """As in training, but leaving no trace: two calls draw the same random numbers."""
        import torch

        with undisturbed(self.site.module), torch.no_grad():
            return float(loss_of(self.site.job, self.site.module, piece.batch))

    def _kept(self, bypass: Bypass, samples: Sequence[Sample]) -> Way | None:
        """The way, if there is room for it, and what is kept is what the network gives."""
        positional = samples[0].mask is not None
        needed = self._num_bytes(samples[0])
        if needed > self.room:
            return self._without(f"{needed} bytes would be needed, {self.room} are allowed")
        kept = self._activations(bypass, positional, needed)
        limit = SAME_VALUES[self.site.precision]
        close = all(_is_close(kept.of(each.piece.rows), each.values, limit) for each in samples)
        if not self._agreed(close):
            return self._without(f"what is kept is not what reaches {bypass.cut.at.name}")
        self.said = f"before {bypass.cut.at.name}"
        return Way(bypass, kept, positional)

    def _activations(self, bypass: Bypass, positional: bool, needed: int) -> Activations:
        """From the disk, or computed now by one process for all."""
        site, store = self.site, self._shelf.store
        about, kept = subject(site, bypass.cut), None
        if site.accelerator.is_main_process:
            kept = find(store, about)
            if kept is None:
                refuse_lack_of_room(store, needed)
                with bypass.installed():
                    kept = write(store, about, self._computed(bypass, positional))
        await_first(site.accelerator.wait_for_everyone)
        if kept is None and (kept := find(store, about)) is None:
            raise TrainingError(
                "the first process kept the outputs of frozen blocks, but this one does not find them",
                expected="a store that all processes see",
                fix="give a folder on a disk that they share with --store",
            )
        return kept

    def _computed(self, bypass: Bypass, positional: bool) -> Iterator[Part]:
        """Of all rows, in an order of their own."""
        import torch

        site, job, done = self.site, self.site.job, 0
        lengths = self._lengths or [1] * len(job.train)
        bypass.stops = True
        try:
            for rows in steady_batches(lengths, range(len(job.train))):
                piece = piece_of(site.plan, job, rows, site.accelerator.device)
                with torch.no_grad():
                    value = _reached(job.task.forward, site.module, piece.batch)
                mask = piece.batch["attention_mask"] if positional else None
                values, counts = flat(value, mask)
                yield Part(torch.tensor(rows), counts.cpu(), values.cpu().clone())
                done += len(rows)
                self._report(done, len(job.train))
        finally:
            bypass.stops = False

    def _num_bytes(self, sample: Sample) -> int:
        """About what all rows take."""
        num_rows, each = len(self.site.job.train), sample.values[0].nbytes
        if sample.mask is None or self._lengths is None:
            return num_rows * sample.value[0].nbytes
        measured = sum(self._lengths[row] for row in sample.piece.rows)
        return round(sum(self._lengths) * int(sample.mask.sum()) / measured * each)

    def _agreed(self, verdict: bool) -> bool:
        """Whether all processes say so: one that went another way would wait for the others for ever."""
        import torch

        accelerator = self.site.accelerator
        if accelerator.num_processes == 1:
            return verdict
        votes = torch.tensor(float(verdict), device=accelerator.device)
        return float(accelerator.reduce(votes, "sum")) == accelerator.num_processes

    def _without(self, why: str) -> None:
        self.said = f"none: {why}"
        self._report(0, 0, self.said)

    def _report(self, done: int, total: int, detail: str = "") -> None:
        report = self.site.job.report
        if report is not None and self.site.accelerator.is_main_process:
            report(Progress("frozen blocks", done, total, detail))

    @property
    def room(self) -> int:
        """Bytes that are allowed, which decide on which way is gone."""
        return self._shelf.max_bytes

    @cached_property
    def _lengths(self) -> Sequence[int] | None:
        return costs(self.site.job.train, self.site.job.task)

    @property
    def _by_length(self) -> list[int]:
        lengths = self._lengths or [1] * len(self.site.job.train)
        return sorted(range(len(lengths)), key=lambda row: (lengths[row], row))

    @property
    def _shelf(self) -> Shelf:
        shelf = self.site.job.shelf
        assert shelf is not None  # see `may_keep`
        return shelf


def _reached(forward: Callable[..., object], module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """What reaches the cut, where the pass ends."""
    try:
        forward(module, batch)
    except Reached as reached:
        return reached.value
    raise AssertionError("the cut was reached before, but not now")


def _is_close(kept: Tensor, seen: Tensor, limit: float) -> bool:
    if kept.shape != seen.shape or kept.dtype != seen.dtype:
        return False
    difference = (kept - seen.to(kept.device)).abs()
    return bool((difference <= limit * seen.abs().max().to(kept.device)).all())
