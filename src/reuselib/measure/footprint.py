"""How much memory a computation takes, found out without doing it: it runs on tensors that have shapes but no numbers.

torch's fake tensors (`torch._subclasses.fake_tensor`) go through a network as real ones would on the device that they
claim to be on, but hold nothing. Here every storage that comes to life on the way is counted until it dies, as
`torch.distributed._tools.mem_tracker` does; so what autograd keeps for the way back is found where it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reuselib.quantization.layers import IntegerLinear
from reuselib.task import Batch
from reuselib.training import dropout
from reuselib.training.optimizer import adamw
from reuselib.training.plan import FitPlan

LARGE = 2**25
"""Bytes from which the C library takes a block from the system by itself and gives it back at once (malloc(3): the
threshold for `mmap` rises up to this); smaller ones come from a heap that hardly ever shrinks."""


@dataclass(frozen=True)
class Bytes:
    """So much memory."""

    small: int = 0
    """In blocks that come from the heap."""
    large: int = 0
    """In blocks of `LARGE` and more."""

    @property
    def total(self) -> int:
        """Both."""
        return self.small + self.large

    @classmethod
    def block(cls, num_bytes: int) -> Bytes:
        """A single block."""
        return cls(0, num_bytes) if num_bytes >= LARGE else cls(num_bytes, 0)

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.small + other.small, self.large + other.large)

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(self.small - other.small, self.large - other.large)

    def __mul__(self, factor: int) -> Bytes:
        return Bytes(self.small * factor, self.large * factor)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a computation takes at its worst moment, besides the tensors that were there before it."""

    peak: Bytes = Bytes()
    parts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of the peak: `gradients`, `moments`, and `activations` for the rest."""
    passing: int = 0
    """Of a training: the most that a pass forward and back takes in small blocks, whose sizes are others with each
    batch."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One optimizer step."""

    plan: FitPlan
    batches: Sequence[Batch]
    """Its micro-batches, as a process gets them; real tensors, of which only the shapes count."""
    loss: Callable[[nn.Module, Batch], Tensor]
    precision: str = "fp32"


def of_tensors(tensors: Iterable[Tensor]) -> Bytes:
    """What tensors take, those that share memory once; one that requires no memory yet counts all the same."""
    storages = {id(each): each.untyped_storage() for each in tensors}
    sizes = {storage._cdata: storage.nbytes() for storage in storages.values()}
    return sum(map(Bytes.block, sizes.values()), Bytes())


def of_module(module: nn.Module) -> Bytes:
    """What a network's weights and buffers take."""
    return of_tensors((*module.parameters(), *module.buffers()))


def of_learned(module: nn.Module) -> Bytes:
    """What the parameters take that require a gradient."""
    return of_tensors(each for each in module.parameters() if each.requires_grad)


def of_training(
    module: nn.Module, lesson: Lesson, device: torch.device, *, dtype: torch.dtype | None = None
) -> Footprint:
    """Of optimizer steps on a network whose parameters may be on the meta device; it comes back as it was.

    Args:
        module: the network; what requires a gradient learns.
        lesson: a step.
        device: where it would take place.
        dtype: of all weights while they work, instead of a precision that casts them whenever they are used.
    """
    precision = lesson.precision if dtype is None else "fp32"
    with _weightless(module, device, dtype) as (mode, ledger), ExitStack() as stack:
        module.train()
        stack.enter_context(patch.object(dropout, "noise", _noise))
        stack.enter_context(dropout.swift_dropout(device))
        optimizer = adamw(module, lesson.plan)
        _begin(optimizer)
        carried = [_carried(mode, ledger, batch, device) for batch in lesson.batches]
        for batch in _telling(carried):
            with _autocast(device, precision):
                loss = lesson.loss(module, batch)
            loss.backward()
            del loss
        passing = max(0, ledger.peak.small - 2 * of_learned(module).small)
        optimizer.step()
        learned = of_learned(module).total
        parts = {"gradients": learned, "moments": 2 * learned}
        rest = ledger.peak.total - 3 * learned
        parts["activations"] = max(0, rest)
        return Footprint(peak=ledger.peak, parts=parts, passing=passing)


def of_forward(
    module: nn.Module, batch: Batch, forward: Callable[[Batch], object], device: torch.device
) -> Footprint:
    """Of a call of a network without gradients; otherwise as `of_training`."""
    with _weightless(module, device) as (mode, ledger), torch.no_grad():
        module.eval()
        given = forward(_carried(mode, ledger, batch, device))
        del given
        return Footprint(peak=ledger.peak, parts={"activations": ledger.peak.total})


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


@dataclass(eq=False)
class _Ledger(TorchDispatchMode):
    """Counts the storages that are alive, of the tensors that operations give within."""

    live: Bytes = field(default_factory=Bytes)
    peak: Bytes = field(default_factory=Bytes)

    def __post_init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = func(*args, **(kwargs or {}))
        for each in tree_leaves(given):
            if isinstance(each, Tensor):
                self.count(each)
        return given

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Do not count these: they were there before."""
        self._known.update(each.untyped_storage()._cdata for each in tensors)

    def count(self, tensor: Tensor) -> None:
        """Count a tensor until nothing holds its storage any longer."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = Bytes.block(storage.nbytes())
        self.live = self.live + size
        if self.live.total > self.peak.total:
            self.peak = self.live
        finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: Bytes) -> None:
        self._known.discard(key)
        self.live = self.live - size


@contextmanager
def _weightless(
    module: nn.Module, device: torch.device, dtype: torch.dtype | None = None
) -> Iterator[tuple[FakeTensorMode, _Ledger]]:
    """A network of fake tensors on `device`, and a count of all that comes besides; as it was afterwards."""
    mode, ledger = FakeTensorMode(allow_non_fake_inputs=True), _Ledger()
    modes = [(part, part.training) for part in module.modules()]
    kept: list[tuple[dict[str, Any], str, Tensor]] = []
    twins: dict[int, Tensor] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is not None:
                    kept.append((table, name, value))
                    twin = twins.setdefault(id(value), _twin(mode, value, device, dtype))
                    table[name] = twin  # type: ignore[assignment]
    ledger.know(twins.values())
    try:
        with torch.device(device), mode, ledger, _without_kernels(module):
            yield mode, ledger
    finally:
        for table, name, value in kept:
            table[name] = value
        for part, training in modes:
            part.training = training


@contextmanager
def _without_kernels(module: nn.Module) -> Iterator[None]:
    """Within, layers of integer weights multiply by a matrix that takes no room: kernels need numbers."""
    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, IntegerLinear):
                stack.enter_context(patch.object(part, "forward", _product(part)))
        yield


def _product(layer: IntegerLinear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        weight = x.new_zeros(1, 1).expand(layer.out_features, layer.in_features)
        return nn.functional.linear(x, weight, layer.bias)

    return forward


def _twin(
    mode: FakeTensorMode, value: Tensor, device: torch.device, dtype: torch.dtype | None
) -> Tensor:
    empty = torch.empty_like(value.detach(), device="meta")
    if dtype is not None and empty.is_floating_point():
        empty = empty.to(dtype)
    fake = FakeTensor(mode, empty, device)
    if isinstance(value, nn.Parameter):
        return nn.Parameter(fake, requires_grad=value.requires_grad)
    return fake


def _carried(mode: FakeTensorMode, ledger: _Ledger, batch: Batch, device: torch.device) -> Batch:
    carried = {
        name: FakeTensor(mode, torch.empty_like(each, device="meta"), device)
        for name, each in batch.items()
    }
    for each in carried.values():
        ledger.count(each)
    return dict(carried)


def _autocast(device: torch.device, precision: str) -> Any:
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds[precision]) if precision in kinds else nullcontext()


def _noise(shape: Sequence[int], p: float) -> Tensor:
    """Takes what `dropout.noise` takes: random words, what they decide, and the factors."""
    size = math.prod(shape)
    words = torch.empty(2 * size, dtype=torch.uint8)
    mask = torch.empty(size, dtype=torch.bool)
    given = torch.empty(tuple(shape))
    del words, mask
    return given
