"""Claims about two sets of tensors that more than one adapter's proof makes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Weights

if TYPE_CHECKING:
    from torch import Tensor


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether dtype, shape and every bit agree. Unlike `torch.equal`, a NaN equals itself and 0.0 is not -0.0."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(
        one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8)
    )


def bit_equal(claim: str, parent: Weights, child: Weights, names: Iterable[str]) -> Finding:
    """The named tensors of the child are the parent's, bit for bit."""
    num_compared = 0
    for name in names:
        if name not in parent:
            return Finding(claim, False, "the parent has no such tensor", name)
        if not same_bits(child[name], parent[name]):
            return Finding(claim, False, "differs from the parent's", name)
        num_compared += 1
    return Finding(claim, True, f"{num_compared} tensors compared")


def truly_new(new: Iterable[str], parent: Weights) -> Finding:
    """What is recorded as new, and so is compared with nothing, is not in the parent."""
    known = next((name for name in new if name in parent), "")
    return Finding("what is new is not in the parent", not known, tensor=known)


def same_shapes(parent: Weights, child: Weights, new: Collection[str] = ()) -> Finding:
    """The child has the parent's names and shapes; only the names in `new` may be missing from the parent."""
    claim = "names and shapes are the parent's" + (
        ", but for new parameters that were trained" if new else ""
    )
    for name in child:
        if name not in parent:
            if name not in new:
                return Finding(
                    claim, False, "the parent has no such tensor, and it was not trained", name
                )
        elif child[name].shape != parent[name].shape:
            got, was = tuple(child[name].shape), tuple(parent[name].shape)
            return Finding(claim, False, f"shape {got}, the parent's is {was}", name)
    lost = next((name for name in parent if name not in child), "")
    return Finding(claim, not lost, "missing in the child" if lost else "", lost)
