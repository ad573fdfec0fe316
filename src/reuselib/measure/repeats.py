"""Blocks of a network that are alike, and the same network with only a few of them.

What a computation takes grows by the same amount with each such block, so two short networks tell it of a deep one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

PLACES = ("idx", "index", "layer_id", "depth")
"""Parts of names of attributes that say which block one is, and not what it does."""


def alike(module: nn.Module, blocks: Sequence[str]) -> tuple[str, ...]:
    """The longest run of neighbours among these blocks that compute the same, but for the numbers of their weights.

    They are of one class throughout, have tensors of the same shapes, types and readiness to learn, share none with
    each other, and hold the same plain values.
    """
    runs: list[list[str]] = [[]]
    last: object = None
    for name in blocks:
        trait = (name.rpartition(".")[0], _trait(module.get_submodule(name)))
        if trait != last:
            runs.append([])
        runs[-1].append(name)
        last = trait
    found = max(runs, key=len)
    seen = [id(each) for name in found for each in module.get_submodule(name).parameters()]
    return tuple(found) if len(seen) == len(set(seen)) else ()


@contextmanager
def only(module: nn.Module, run: Sequence[str], number: int) -> Iterator[None]:
    """Within, only the first `number` blocks of a run from `alike` are there, as if there had never been more."""
    container = module.get_submodule(run[0].rpartition(".")[0])
    dropped = {name.rpartition(".")[2] for name in run[number:]}
    whole = dict(container._modules)
    kept = [each for name, each in whole.items() if name not in dropped]
    container._modules.clear()
    container._modules.update({str(at): each for at, each in enumerate(kept)})
    try:
        yield
    finally:
        container._modules.clear()
        container._modules.update(whole)


def _trait(block: nn.Module) -> object:
    return tuple(
        (
            name,
            type(part),
            tuple(
                sorted((key, repr(each)) for key, each in vars(part).items() if _tells(key, each))
            ),
            tuple(
                (key, each.shape, each.dtype, each.requires_grad)
                for table in (part._parameters, part._buffers)
                for key, each in table.items()
                if each is not None
            ),
        )
        for name, part in block.named_modules()
    )


def _tells(key: str, value: object) -> bool:
    plain = value is None or isinstance(value, (bool, int, float, str))
    return plain and not any(place in key for place in PLACES)
