"""Weights that are divided among processes, seen from one of them: its share, and what all shares make together.

A share is a `DTensor`; everything else is whole, and all that stands here leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def is_sharded(module: nn.Module) -> bool:
    """Whether its weights are in shares now."""
    return any(hasattr(part, "full_tensor") for part in module.parameters())


@contextmanager
def looking(module: nn.Module) -> Iterator[None]:
    """Run a network without learning within; its weights are in shares again afterwards, if they were.

    Raises nothing of its own. What is gathered in inference mode could not be learned later, so that mode is left to
    networks that are whole.
    """
    import torch

    if not is_sharded(module):
        with torch.inference_mode():
            yield
        return
    spread_buffers(module)
    with torch.no_grad():
        yield
    rest(module)


def rest(module: nn.Module) -> None:
    """Give up what was gathered for a forward pass that no backward pass follows."""
    for part in module.modules():
        reshard = getattr(part, "reshard", None)
        if reshard is not None and hasattr(part, "set_requires_gradient_sync"):
            reshard()


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or what its shares make together; then every process must ask, in the same order."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def whole_at_first(tensor: Tensor) -> Tensor | None:
    """As `whole`, but only the first process holds on to what is gathered; the others get None and have taken part."""
    import torch.distributed as dist

    full = whole(tensor)
    return full if full is tensor or dist.get_rank() == 0 else None


def local(tensor: Tensor) -> Tensor:
    """The tensor itself, or this process's share: a view of it."""
    share = getattr(tensor, "to_local", None)
    return tensor if share is None else share()


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The length of a gradient: of all shares, if this process has some only; what is whole counts once."""
    import torch
    import torch.distributed as dist

    shares = [local(each) for each in gradients if hasattr(each, "full_tensor")]
    if not shares:
        return torch.nn.utils.get_total_norm(gradients, foreach=None)
    rest = [each for each in gradients if not hasattr(each, "full_tensor")]
    square = torch.nn.utils.get_total_norm(shares).square()
    dist.all_reduce(square)
    if rest:
        square = square + torch.nn.utils.get_total_norm(rest).square()
    return square.sqrt()


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, which is whole and the same on every process, in shares if `like` is."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def spread_buffers(module: nn.Module) -> None:
    """Give every process the buffers of the first, such as running statistics, as is done for whole copies."""
    import torch
    import torch.distributed as dist

    for buffer in module.buffers():
        if buffer.layout == torch.strided:
            value = buffer.contiguous().flatten().view(torch.uint8)
            dist.broadcast(value, src=0)
            buffer.copy_(value.view(buffer.dtype).view(buffer.shape))
