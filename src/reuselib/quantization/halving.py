"""Weights in 16 bits: the trivial member of the family."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Weights
from reuselib.errors import IncompatibleStep
from reuselib.measure.claims import same_bits, same_shapes

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


def prove_half(
    parent: Weights, child: Weights, dtype: str, new: Collection[str]
) -> Iterator[Finding]:
    """Every floating-point tensor is the parent's, cast; but for those in `new`, which the parent does not hold."""
    import torch

    narrow = getattr(torch, dtype)
    whole = same_shapes(parent, child, new, dtypes=False)
    yield whole
    if not whole.holds:
        return
    claim = f"every tensor is the parent's, cast to {dtype}"
    for name in child:
        if name in new:
            if child[name].is_floating_point() and child[name].dtype != narrow:
                yield Finding(claim, False, f"stored as {child[name].dtype}", name)
                return
            continue
        wanted = parent[name]
        wanted = wanted.to(narrow) if wanted.is_floating_point() else wanted
        if not same_bits(child[name], wanted):
            yield Finding(claim, False, "differs", name)
            return
    number = sum(name not in new for name in child)
    yield Finding(claim, True, f"{number} tensors compared", compared=number)
