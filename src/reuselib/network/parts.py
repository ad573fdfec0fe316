"""What a network is made of: stem, blocks, tail, head. Found in any network, by its lists of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.errors import IncompatibleStep, SelectorError
from reuselib.network import families

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Parts:
    """An exact partition of a module's parameter names, in the order of its definition.

    A parameter that is used twice, such as a tied embedding, counts once: by its first name.
    """

    stem: frozenset[str]
    """What comes before the first block, such as embeddings."""
    blocks: tuple[frozenset[str], ...]
    """The repeated units, first to last. What lies between two of them belongs to the first."""
    tail: frozenset[str]
    """What comes after the last block and is not the head, such as a final norm or a pooler."""
    head: frozenset[str]
    """What the task calls the head."""

    @property
    def backbone(self) -> frozenset[str]:
        """Everything but the head."""
        return self.stem.union(*self.blocks, self.tail)

    @property
    def depths(self) -> dict[str, int]:
        """Depth of each parameter, for layer-wise decay.

        The stem is at 0, block `i` at `i + 1`, tail and head one beyond the last block.
        """
        levels = (self.stem, *self.blocks, self.tail | self.head)
        return {name: depth for depth, names in enumerate(levels) for name in names}


def parts(module: nn.Module, head: Sequence[str]) -> Parts:
    """Partition the names of the module's parameters.

    Blocks are the members of lists (`ModuleList`, `Sequential`) that are of one class and hold the most
    parameters together. A network without such a class is cut at its weight layers instead, and one
    without lists is all stem.

    Args:
        module: any network.
        head: names of the submodules that are the head, as `Task.head` gives them.

    Raises:
        SelectorError: the module has no submodule of that name.
    """
    submodules = dict(module.named_modules(remove_duplicate=False))
    for name in head:
        if name not in submodules:
            raise SelectorError(
                f"the head names a submodule '{name}', but the network has none of that name",
                expected=f"one of: {', '.join(name for name, _ in module.named_children())}",
                fix="correct the head of the task",
            )
    names = [name for name, _ in module.named_parameters()]
    head_names = frozenset(within(names, head))
    block_of = {
        name: index
        for index, block in enumerate(block_names(module, head))
        for name in within(names, (block,))
    }
    return _partition(names, block_of, head_names)


def within(names: Iterable[str], roots: Sequence[str]) -> Iterator[str]:
    """The names that lie in one of the submodules `roots`, or are one of them."""
    prefixes = tuple(f"{root}." if root else "" for root in roots)
    return (name for name in names if name in roots or name.startswith(prefixes))


def _partition(names: list[str], block_of: dict[str, int], head: frozenset[str]) -> Parts:
    body = [name for name in names if name not in head]
    num_blocks = 1 + max((block_of[name] for name in body if name in block_of), default=-1)
    remaining = sum(name in block_of for name in body)
    stem: list[str] = []
    tail: list[str] = []
    blocks: list[list[str]] = [[] for _ in range(num_blocks)]
    current = -1
    for name in body:
        if name in block_of:
            current = block_of[name]
            remaining -= 1
            blocks[current].append(name)
        elif current < 0:
            stem.append(name)
        elif remaining:
            blocks[current].append(name)
        else:
            tail.append(name)
    return Parts(
        frozenset(stem), tuple(frozenset(block) for block in blocks), frozenset(tail), head
    )


def block_names(module: nn.Module, head: Sequence[str]) -> list[str]:
    """Names of the modules that are blocks, in the order of definition; none inside another.

    Args:
        module: any network.
        head: names of the submodules that are the head, as `Task.head` gives them.
    """
    from torch import nn

    groups: dict[object, list[tuple[str, nn.Module]]] = {}
    for name, container in module.named_modules():
        if not isinstance(container, (nn.ModuleList, nn.Sequential)):
            continue
        for child_name, child in container.named_children():
            full_name = f"{name}.{child_name}" if name else child_name
            if any(within((full_name,), head)) or _is_stage(child) or _num_weights(child) == 0:
                continue
            groups.setdefault(_family(child), []).append((full_name, child))
    groups = {family: members for family, members in groups.items() if len(members) > 1}
    if not groups:
        return _only_block(module)
    # `max` keeps the first of equals, and outer modules are listed before those inside them.
    largest = max(groups.values(), key=lambda group: sum(_num_weights(child) for _, child in group))
    return _outermost([name for name, _ in largest])


def _only_block(module: nn.Module) -> list[str]:
    """The block that is left of a transformer: alone in its list, it can only be known by the network's family."""
    try:
        return [block.name for block in families.family(module).blocks]
    except IncompatibleStep:
        return []


def _family(child: nn.Module) -> object:
    """What makes two members of a list alike: their class, or being a plain layer with a matrix.

    Layers without a matrix (norms) are no blocks of their own: they go with the layer before them.
    """
    if any(True for _ in child.children()):
        return type(child)
    has_matrix = any(parameter.dim() > 1 for parameter in child.parameters())
    return "layer" if has_matrix else "norm"


def _is_stage(child: nn.Module) -> bool:
    """Whether a member of a list only groups blocks: a list itself, or `ResNetStage`, `SwinStage` and so on."""
    from torch import nn

    return isinstance(child, (nn.ModuleList, nn.Sequential)) or type(child).__name__.endswith(
        "Stage"
    )


def _num_weights(child: nn.Module) -> int:
    return sum(parameter.numel() for parameter in child.parameters())


def _outermost(names: list[str]) -> list[str]:
    kept: list[str] = []
    for name in names:
        if not any(within((name,), kept)):
            kept.append(name)
    return kept
