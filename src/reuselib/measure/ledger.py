"""A network of tensors that have shapes but no numbers, and a count of what computing with it would take.

torch's fake tensors (`torch._subclasses.fake_tensor`) go through a network as real ones would on the device that they
claim to be on, but hold nothing. Here every storage that comes to life on the way is counted until it dies, as
`torch.distributed._tools.mem_tracker` does; so what autograd keeps for the way back is found where it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from unittest.mock import patch
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reuselib.measure.heap import Bytes
from reuselib.quantization.layers import IntegerLinear
from reuselib.task import Batch

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution")
"""Operations for which oneDNN makes a kernel for each shape, in bf16."""


@dataclass(eq=False)
class Ledger(TorchDispatchMode):
    """Counts the storages that are alive, of the tensors that operations give within."""

    live: Bytes = field(default_factory=Bytes)
    course: list[Bytes] = field(default_factory=list[Bytes])
    """What was alive whenever there was more of it."""
    products: set[object] = field(default_factory=set[object])
    """Each shape of a product in bf16."""

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
        given = _chosen(func, args)
        if given is None:
            given = func(*args, **(kwargs or {}))
        for each in tree_leaves(given):
            if isinstance(each, Tensor):
                self.count(each)
        name = func.overloadpacket.__name__
        if name in PRODUCTS and args[0].dtype == torch.bfloat16:
            tensors = (each for each in args if isinstance(each, Tensor))
            self.products.add((name, *((each.shape, each.stride()) for each in tensors)))
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
        self.course.append(self.live)
        finalize(storage, self._forget, key, size).atexit = False

    def most(self, parts: int = 1) -> list[Bytes]:
        """The most that was alive since this was asked for last, in each of so many equal parts of the way."""
        course, self.course = self.course or [self.live], []
        bounds = [len(course) * at // parts for at in range(parts + 1)]
        return [
            max(course[start:end] or course[-1:], key=lambda each: each.total)
            for start, end in pairwise(bounds)
        ]

    def _forget(self, key: int, size: Bytes) -> None:
        self._known.discard(key)
        self.live = self.live - size


@contextmanager
def weightless(
    module: nn.Module, device: torch.device, dtype: torch.dtype | None = None
) -> Iterator[tuple[FakeTensorMode, Ledger]]:
    """A network of fake tensors on `device`, and a count of all that comes besides; as it was afterwards.

    Args:
        module: the network.
        device: that its tensors claim to be on.
        dtype: of all weights, instead of their own.
    """
    mode, ledger = FakeTensorMode(allow_non_fake_inputs=True), Ledger()
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


def carried(mode: FakeTensorMode, ledger: Ledger, batch: Batch, device: torch.device) -> Batch:
    """A batch of fake tensors, counted."""
    found = {
        name: FakeTensor(mode, torch.empty_like(each, device="meta"), device)
        for name, each in batch.items()
    }
    for each in found.values():
        ledger.count(each)
    return dict(found)


def shape_of(call: Callable[[Batch], Tensor], batch: Batch) -> tuple[int, ...]:
    """Of what a call gives for tensors of these shapes."""
    cpu = torch.device("cpu")
    with weightless(nn.Identity(), cpu) as (mode, ledger):
        return tuple(call(carried(mode, ledger, batch, cpu)).shape)


def row_means(values: Tensor, counts: Tensor) -> Tensor:
    """As `objectives.row_means` where every position of a batch counts."""
    return values.reshape(len(counts), -1).mean(dim=1)


def noise(shape: Sequence[int], p: float) -> Tensor:
    """Takes what `dropout.noise` takes: random words, what they decide, and the factors."""
    size = math.prod(shape)
    words = torch.empty(2 * size, dtype=torch.uint8)
    mask = torch.empty(size, dtype=torch.bool)
    given = torch.empty(tuple(shape))
    del words, mask
    return given


def _chosen(func: Any, args: Sequence[Any]) -> Tensor | None:
    """What a mask picks out: all that it is laid over, for its numbers are not known. None if `func` is no picking."""
    name = func.overloadpacket.__name__
    if (
        name not in _PICKING
        or len(args[1]) != 1
        or args[1][0] is None
        or args[1][0].dtype != torch.bool
    ):
        return None
    whole, (mask,) = args[0], args[1]
    if name == "index":
        return whole.new_empty((mask.numel(), *whole.shape[mask.ndim :]))
    return torch.empty_like(whole) if name == "index_put" else whole


_PICKING = ("index", "index_put", "index_put_", "_index_put_impl_")


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
