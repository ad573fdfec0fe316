"""Dropout on a CPU at a fifth of the price: the same chance for each element, from a faster source.

torch draws a whole random number for each element, which in a small encoder takes as long as a matrix product of the
same size. Here 16 bits decide about an element. Each call draws its seed from torch's generator, so masks depend on
its state and nothing else: runs repeat bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

MIN_ELEMENTS = 4096
"""Below, seeding costs more than it saves."""
LEVELS = 1 << 16


def swift_dropout(device: torch.device) -> AbstractContextManager[object]:
    """Answer `dropout` and attention with dropout as described above, within and on a CPU.

    May be entered again and again: around each forward pass, since it costs a little at every call of a function.
    """
    return _Swift() if device.type == "cpu" else nullcontext()


def noise(shape: Sequence[int], p: float) -> Tensor:
    """What dropout multiplies with: 0 with probability `p`, else what keeps the mean at 1.

    The probability is rounded to 1 in 65,536, and the scale to match.
    """
    kept = round((1.0 - p) * LEVELS)
    size = math.prod(shape)
    seed = int(torch.randint(2**63 - 1, ()))
    random = np.random.Generator(np.random.SFC64(seed))
    words = random.integers(0, 2**64, (size + 3) // 4, dtype=np.uint64)
    if kept == LEVELS:
        return torch.ones(tuple(shape))
    mask = words.view(np.uint16)[:size] < np.uint16(kept)
    return torch.from_numpy(mask).float().mul_(LEVELS / kept).view(tuple(shape))


class _Swift(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        known = _ANSWERS.get(func)
        if known is not None:
            answer = known(*args, **(kwargs or {}))
            if answer is not None:
                return answer
        return func(*args, **(kwargs or {}))


def _applies(value: Tensor, p: float) -> bool:
    return (
        value.device.type == "cpu"
        and value.dtype == torch.float32
        and value.numel() >= MIN_ELEMENTS
        and 0.0 < p < 1.0 - 1.0 / LEVELS
        and torch.is_grad_enabled()
        and not _recomputes()
    )


def _recomputes() -> bool:
    """Whether what is computed now is computed again on the way back (activation checkpointing).

    torch lifts this mode during a backward pass, so both times must be torch's. The other sort of checkpointing
    computes without gradients at first, which is told apart by that.
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor | None:
    if not training or inplace or not _applies(input, p):
        return None
    return input * noise(input.shape, p)


def _attention(  # noqa: PLR0913 - torch's signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """The formula in torch's documentation; left to torch unless there is dropout to speed up."""
    if is_causal or enable_gqa or query.ndim != 4 or not _applies(query, dropout_p):
        return None
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if attn_mask is None:
        weights = scores.softmax(-1)
    else:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill_(
                attn_mask.logical_not(), -math.inf
            )
        # A row in which everything is masked attends to nothing, rather than becoming nan.
        weights = torch._safe_softmax(scores + attn_mask, -1)
    return (weights * noise(weights.shape, dropout_p)) @ value


_ANSWERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    functional.dropout: _dropout,
    functional.scaled_dot_product_attention: _attention,
}
