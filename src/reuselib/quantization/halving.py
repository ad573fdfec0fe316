"""Weights in 16 bits: the trivial member of the family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reuselib.errors import IncompatibleStep

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def halve(module: nn.Module, dtype: str) -> None:
    """Round every floating-point tensor that is saved to `bfloat16` or `float16`; in memory they stay fp32.

    Raises:
        IncompatibleStep: a value is too large for the type.
    """
    import torch

    narrow = getattr(torch, dtype)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(narrowed(name, tensor, narrow))


def narrowed(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating-point tensor in a type of 16 bits; otherwise as `halve`."""
    import torch

    rounded, kind = tensor.to(dtype), str(dtype).removeprefix("torch.")
    if not rounded.isfinite().all():
        raise IncompatibleStep(
            f"{name} holds values beyond {torch.finfo(dtype).max:g}, the largest of {kind}",
            expected="finite weights within the range of the type",
            fix="use `scheme: bf16`, which has the range of fp32",
        )
    return rounded
