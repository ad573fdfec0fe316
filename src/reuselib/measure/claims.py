"""Claims about two sets of tensors that more than one adapter's proof makes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Weights

if TYPE_CHECKING:
    from torch import Tensor


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether dtype, shape and every bit agree. Unlike `torch.equal`, a NaN equals itself and 0.0 is not -0.0."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # compared as bytes, without a copy of either
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
    return Finding(claim, True, f"{num_compared} tensors compared", compared=num_compared)


def faultless(claim: str, faults: Iterator[tuple[str, str]], compared: int = 0) -> Finding:
    """A claim that holds unless there is a fault: the name of a tensor, and what is wrong with it.

    Args:
        claim: in words.
        faults: only the first is looked for.
        compared: tensors that were compared if there is none.
    """
    name, detail = next(faults, ("", ""))
    return Finding(claim, not name, detail, name, 0 if name else compared)


def truly_new(new: Iterable[str], parent: Weights) -> Finding:
    """What is recorded as new, and so is compared with nothing, is not in the parent."""
    known = next((name for name in new if name in parent), "")
    return Finding("what is new is not in the parent", not known, tensor=known)


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What norms keep of the rows that they saw; it moves while a network trains, without being learned."""


def only_statistics(names: Iterable[str]) -> Iterator[Finding]:
    """What is recorded as moved without being trained are the statistics of norms, not weights."""
    names = tuple(names)
    claim = "what moved without being trained are statistics of norms"
    weight = next((name for name in names if name.rpartition(".")[2] in ("weight", "bias")), "")
    odd = next((name for name in names if name.rpartition(".")[2] not in STATISTICS), "")
    if weight:
        yield Finding(claim, False, "is a weight", weight)
    elif odd:
        yield Finding(claim, None, "its name does not say whether it is a weight", odd)
    elif names:
        yield Finding(claim, True, f"{len(names)} of them")


def same_shapes(
    parent: Weights, child: Weights, new: Collection[str] = (), *, dtypes: bool = True
) -> Finding:
    """The child has the parent's names, shapes and, with `dtypes`, types.

    Only the names in `new` may be missing from the parent.
    """
    claim = "names and shapes are the parent's" + (
        ", but for new parameters that were trained" if new else ""
    )
    for name in child:
        if name not in parent:
            if name not in new:
                return Finding(
                    claim, False, "the parent has no such tensor, and it was not trained", name
                )
            continue
        own, other = child[name], parent[name]
        if own.shape != other.shape:
            got, was = tuple(own.shape), tuple(other.shape)
            return Finding(claim, False, f"shape {got}, the parent's is {was}", name)
        if dtypes and own.dtype != other.dtype:
            return Finding(
                claim, False, f"stored as {own.dtype}, the step worked in {other.dtype}", name
            )
    lost = next((name for name in parent if name not in child), "")
    return Finding(claim, not lost, "missing in the child" if lost else "", lost)


def only_learned(
    start: Weights,
    child: Weights,
    trained: Iterable[str],
    statistics: Iterable[str],
    *,
    still: str,
    changed: str,
) -> Iterator[Finding]:
    """What training leaves behind: names and shapes of its start, changes only where it was free to make them.

    Args:
        start: the weights before.
        child: those after.
        trained: names of what learned.
        statistics: names of what moved besides.
        still: the claim that all others are bit-equal, in words.
        changed: the claim that something was learned, in words.
    """
    learned = set(trained)
    moved = set(statistics) - learned
    yield same_shapes(start, child, learned)
    yield from only_statistics(sorted(moved))
    frozen = [name for name in child if name not in learned and name not in moved]
    yield bit_equal(still, start, child, frozen)
    differs = any(
        name not in start or not same_bits(child[name], start[name])
        for name in child
        if name in learned
    )
    yield Finding(changed, differs)
