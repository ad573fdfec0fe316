"""Inner values of a network: which to look at, and looking at them while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reuselib.errors import IncompatibleStep

if TYPE_CHECKING:
    from torch import Tensor, nn

RELATED = ("query", "key", "value")
"""What relations are among."""


@dataclass(frozen=True)
class Sight:
    """One value."""

    key: str
    """Under which it is kept, such as `hidden.-1`."""
    submodule: str
    """Whose output it is."""
    columns: tuple[int, int] | None = None
    """Which of the output's columns, where a layer computes several values at once; None: all."""


def hidden_sights(module: nn.Module, head: Sequence[str], blocks: Sequence[int]) -> list[Sight]:
    """The outputs of blocks.

    Args:
        module: any network with blocks.
        head: names of the submodules that are the head.
        blocks: their numbers; negative ones count from the last.

    Raises:
        IncompatibleStep: there are no such blocks.
    """
    if not blocks:
        return []
    names = _block_names(module, head)
    return [Sight(f"hidden.{at}", names[_place(at, len(names))]) for at in blocks]


def relation_sights(module: nn.Module, blocks: Sequence[int]) -> list[Sight]:
    """Queries, keys and values of blocks, as `hidden_sights`.

    Raises:
        IncompatibleStep: there are no such blocks, or it is not known which layers compute these.
    """
    from reuselib.network.families import family

    if not blocks:
        return []
    known = family(module).blocks
    found: list[Sight] = []
    for at in blocks:
        attention = known[_place(at, len(known))].attention
        for what, part in zip(
            RELATED, (attention.query, attention.key, attention.value), strict=True
        ):
            found.append(Sight(f"{what}.{at}", part.layer, (part.start, part.stop)))
    return found


@contextmanager
def watched(module: nn.Module, sights: Sequence[Sight]) -> Iterator[dict[str, Tensor]]:
    """What is seen within, by key: filled anew whenever the network runs."""
    seen: dict[str, Tensor] = {}
    handles = [
        module.get_submodule(sight.submodule).register_forward_hook(_noting(sight, seen))
        for sight in sights
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def positions(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values of each position, one after another, row by row, and how many each row has; padding is left out.

    Args:
        values: [rows, width], [rows, positions, width], or maps [rows, channels, height, width] of images.
        mask: of the batch [rows, tokens], if it has one.

    Returns:
        [positions of all rows, width], and [rows], int64.
    """
    import torch

    rows = len(values)
    if mask is not None and values.ndim == 3 and values.shape[:2] == mask.shape:
        return values[mask.bool()], mask.sum(dim=1)
    if values.ndim == 4:
        values = values.permute(0, 2, 3, 1)
    flat = values.reshape(-1, values.shape[-1])
    counts = torch.full((rows,), len(flat) // rows, dtype=torch.int64, device=values.device)
    return flat, counts


def _block_names(module: nn.Module, head: Sequence[str]) -> Sequence[str]:
    """By the table of the network's family, which also knows a single block for one; otherwise by likeness."""
    from reuselib.network.families import family
    from reuselib.network.parts import block_names

    try:
        return [block.name for block in family(module).blocks]
    except IncompatibleStep:
        return block_names(module, head)


def _noting(sight: Sight, seen: dict[str, Tensor]) -> Any:
    def note(_module: nn.Module, _inputs: object, output: Any) -> None:
        value = output if hasattr(output, "shape") else output[0]
        seen[sight.key] = value if sight.columns is None else value[..., slice(*sight.columns)]

    return note


def _place(at: int, num_blocks: int) -> int:
    if not -num_blocks <= at < num_blocks:
        raise IncompatibleStep(
            f"layer_map names block {at}, but the network has {num_blocks} blocks",
            expected=f"numbers from 0 to {num_blocks - 1}, or from -1 down to {-num_blocks}"
            if num_blocks
            else "a network with repeated blocks",
            fix="correct layer_map, where each pair is [block of the student, block of the teacher]",
        )
    return at % num_blocks
