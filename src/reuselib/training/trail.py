"""Notes down digests of a training's state while it runs, as seldom as needed to cost next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from reuselib.lineage.hashing import sha256_memory
from reuselib.lineage.rows import TensorRow
from reuselib.lineage.tensors import dtype_codes, raw_bytes
from reuselib.lineage.trail import EARLY, WARM_UP, Entry, Trail, rows_digest, state_hash
from reuselib.training.shares import whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.adapter import Json

SHARE = 0.01
"""Of the time of a training that may go into its trail, besides the first entry and the last."""
COPIED = 2**28
"""Bytes of tensors that are brought to the CPU at once."""
MAX_PERIODIC = 1_000
"""Entries at multiples of `every`."""


@dataclass
class Recorder:
    """Takes the trail of one training.

    An entry costs a pass over everything that is trained, so how often there is one is decided when it is known how
    long a step takes and how long an entry. A replay looks where the recorded training looked.
    """

    module: nn.Module
    learned: Sequence[str]
    """Names of the parameters that learn, at whatever time."""
    num_steps: int
    """As planned; early stopping may end it before."""
    num_rows: int
    at: Sequence[int] | None = None
    """Steps that get an entry; None to choose them."""
    every: int = 0
    """As chosen; 0 before that."""
    agree: Callable[[int], int] | None = None
    """Makes one of what several processes chose, if all of them must take part in an entry."""
    entries: list[Entry] = field(default_factory=list[Entry])
    seconds: float = 0.0
    """Spent on the trail so far."""
    tensors: tuple[str, ...] = ()
    """Names of what the last digest is of."""
    rows: set[int] = field(default_factory=set[int])
    """Numbers of the rows that a replay saw."""
    _begun: Mapping[str, str] = field(init=False)
    """Digests of the buffers when the training began."""
    _batches: list[Sequence[int]] = field(default_factory=list[Sequence[int]])
    _times: list[float] = field(default_factory=list[float])
    _last: float = 0.0
    _seen: tuple[int, Tensor | float] | None = None

    def __post_init__(self) -> None:
        started = time.perf_counter()
        self._begun = {row.name: row.sha256 for row in tensor_digests(_buffers(self.module))}
        self._last = time.perf_counter()
        self.seconds += self._last - started

    def due(self, step: int) -> bool:
        """Whether there is to be an entry after that step."""
        if self.at is not None:
            return step in self.at
        return step in (1, EARLY, self.num_steps) or (self.every > 0 and step % self.every == 0)

    def see(self, step: int, rows: Sequence[int], loss: Tensor, kept: str = "") -> None:
        """Take note of an optimizer step that was just done.

        Args:
            step: its number, from 1.
            rows: numbers of the rows of its batch.
            loss: of the batch.
            kept: digest of the state that was kept after it, which makes an entry of it.
        """
        now = time.perf_counter()
        self._times.append(now - self._last)
        self._batches.append(rows)
        self._seen = (step, loss)
        if self.at is not None:
            self.rows.update(rows)
        if kept or self.due(step):
            self._note(step, loss, kept)
        if step == WARM_UP and self.at is None:
            self.every = self._chosen() if self.agree is None else self.agree(self._chosen())
        self._last = time.perf_counter()
        self.seconds += self._last - now

    def finish(self) -> Trail:
        """The trail of a training that ended after the step that was seen last."""
        assert self._seen is not None  # no training has no step
        step, loss = self._seen
        if not self.entries or self.entries[-1].step != step:
            started = time.perf_counter()
            self._note(step, loss, "")
            self.seconds += time.perf_counter() - started
        return Trail(
            every=self.every or self.num_steps,
            num_steps=step,
            num_rows=self.num_rows,
            tensors=self.tensors,
            entries=tuple(self.entries),
        )

    def state(self) -> str:
        """`stateHash1` of what is trained, as it is now."""
        digests = tensor_digests(
            {name: self.module.get_parameter(name) for name in self.learned} | _buffers(self.module)
        )
        counted = [row for row in digests if self._begun.get(row.name) != row.sha256]
        self.tensors = tuple(sorted((row.name for row in counted), key=str.encode))
        return state_hash(counted)

    def notes(self) -> dict[str, Json]:
        """What it takes to go on, besides the rows since the last entry, which follow from the plan."""
        step, loss = self._seen or (0, 0.0)
        return {
            "every": self.every,
            "entries": [entry.to_json() for entry in self.entries],
            "seconds": self.seconds,
            "tensors": list(self.tensors),
            "times": list(self._times) if step < WARM_UP else [],
            "loss": float(loss),
        }

    def resume(self, step: int, notes: Mapping[str, Any], batches: Sequence[Sequence[int]]) -> None:
        """Go on where a recorder of the same training was after a step.

        Args:
            step: its number.
            notes: what that one said.
            batches: rows of the steps since the last entry.
        """
        self.every, self.seconds = int(notes["every"]), self.seconds + float(notes["seconds"])
        self.entries = [Entry(**each) for each in notes["entries"]]
        self.tensors = tuple(notes["tensors"])
        self._times, self._batches = [float(each) for each in notes["times"]], list(batches)
        self._seen = (step, notes["loss"])
        self._last = time.perf_counter()

    def _note(self, step: int, loss: Tensor | float, kept: str) -> None:
        rows = rows_digest(self._batches)
        self._batches = []
        self.entries.append(
            Entry(step=step, state=self.state(), loss=float(loss), rows=rows, kept=kept)
        )

    def _chosen(self) -> int:
        """So many steps that the digest of their state takes `SHARE` of their time, rounded up."""
        step = max(median(self._times[1:]), 1e-9)  # the first step warms up, and is not typical
        self._times = []
        return rounded_up(max(self.seconds / (SHARE * step), self.num_steps / MAX_PERIODIC))


def rounded_up(number: float) -> int:
    """To 1, 2 or 5 times a power of ten."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= number:
                return factor * power
        power *= 10


def tensor_digests(tensors: Mapping[str, Tensor]) -> list[TensorRow]:
    """Type, shape and digest of tensors in memory, wherever they are.

    Those that must be copied first, because they are in shares or not on the CPU, are copied a few at a time.
    """
    codes, digests = dtype_codes(), list[str]()
    waiting: list[memoryview] = []
    for tensor in tensors.values():
        full = whole(tensor)
        waiting.append(raw_bytes(full))
        copied = full is not tensor or tensor.device.type != "cpu"
        if copied and sum(each.nbytes for each in waiting) >= COPIED:
            digests += sha256_memory(waiting)
            waiting = []
    digests += sha256_memory(waiting)
    return [
        TensorRow(name, codes[tensor.dtype], tuple(tensor.shape), digest, "")
        for (name, tensor), digest in zip(tensors.items(), digests, strict=True)
    ]


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """Such as running statistics; sparse ones and others that have no bytes of their own cannot be told apart."""
    import torch

    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if buffer.layout == torch.strided and buffer.dtype in dtype_codes()
    }
