"""Weights that are zero in a sparse model, and stay so while it trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reuselib.training.shares import local

if TYPE_CHECKING:
    from torch import Tensor, nn

MIN_SHARE = 0.005
"""Of a tensor's weights that are exactly zero, if zeros were put there; what was only trained has next to none."""


def sparse_parameters(module: nn.Module, fresh: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the matrices and kernels whose zeros were put there: some weights are zero, but not all.

    Args:
        module: a sparse model.
        fresh: names of tensors that were just initialised, to zero perhaps, and have to learn.
    """
    found: list[str] = []
    for name, parameter in module.named_parameters():
        if name in fresh or parameter.dim() < 2 or not parameter.is_floating_point():
            continue
        number = int((parameter.detach() == 0).sum())
        if MIN_SHARE * parameter.numel() <= number < parameter.numel() and number:
            found.append(name)
    return tuple(found)


@contextmanager
def zeros_kept(module: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within, those parameters get no gradient where they are zero now.

    A gradient that is always zero leaves AdamW's moments at zero and takes no step, and decay scales zero to zero; nor
    does it count for the norm that gradients are clipped by. The mask is applied before gradients are added up or
    exchanged between processes; or, where each process has a share of a parameter, to its share of the sum.
    """
    handles = []
    for name in names:
        parameter = module.get_parameter(name)
        if parameter.requires_grad:
            zero = local(parameter.detach()) == 0
            if local(parameter) is parameter:
                handles.append(parameter.register_hook(_silenced(zero)))
            else:
                handles.append(parameter.register_post_accumulate_grad_hook(_silenced_share(zero)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _silenced(zero: Tensor) -> Callable[[Tensor], Tensor]:
    # filled, not multiplied: with a loss scale a gradient may be infinite for a step
    return lambda gradient: gradient.masked_fill(zero, 0.0)


def _silenced_share(zero: Tensor) -> Callable[[Tensor], None]:
    def silence(parameter: Tensor) -> None:
        assert parameter.grad is not None
        local(parameter.grad).masked_fill_(zero, 0.0)

    return silence
