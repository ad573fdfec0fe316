"""Where the parts of a transformer are: its blocks, and in each the projections, heads and FFN units.

`family(module)` looks a network up in the tables (`network/tables.py`) and gives names and sizes as they are in that
very module, also after it was pruned unevenly:

    found = family(module)                       # IncompatibleStep if its family has no table
    for block in found.blocks:                   # encoder first, then decoder, as `block[i]` counts them
        block.name                               # "bert.encoder.layer.0"
        block.attentions                         # self-attention, then cross-attention
        block.attention.query                    # Projection(layer, start, stop): rows of a layer's output
        block.attention.query.of(output)         # [..., outputs of the layer] -> [..., heads, head_dim]
        block.attention.output                   # name of the layer that reads the heads, in order
        block.feed_forward.down                  # name of the layer that reads the units

The inputs of `attention.output` are the heads, `head_dim` after another; those of `feed_forward.down` are the units.
To silence a unit or a head, zero these columns: `matrix(layer)[:, columns] = 0` (`network/layers.py`), with
`attention.columns(head)` or `[unit]`. To drop blocks, or to cut for good:

    plan = axes.plan(module, Keep(blocks=(0, 2, 4)))     # network/axes.py: a Cut, plain data, `to_json` and `of_json`
    stock = stating.resize(module, plan)                 # network/stating.py: in place; False: not said by the config
    cutting.cut(skeleton, plan)                          # network/cutting.py: the same again, in `rebuild`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reuselib.errors import IncompatibleStep
from reuselib.network.anatomy import AttentionTable, FeedForwardTable, Table
from reuselib.network.layers import matrix
from reuselib.network.tables import TABLES

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Projection:
    """A run of a layer's outputs: all of them, or the part of a fused layer that is meant."""

    layer: str
    start: int
    stop: int
    width: int
    """Of a head; 1 for FFN units."""

    @property
    def num_units(self) -> int:
        """Heads or FFN units."""
        return (self.stop - self.start) // self.width

    def of(self, output: Tensor) -> Tensor:
        """That part of the layer's output: [..., outputs of the layer] -> [..., units, width]."""
        part = output[..., self.start : self.stop]
        return part.reshape(*part.shape[:-1], self.num_units, self.width)


@dataclass(frozen=True)
class Attention:
    """One attention."""

    table: AttentionTable
    name: str
    """The module that computes it."""
    query: Projection
    key: Projection
    value: Projection
    by_head: tuple[str, ...]
    """Further layers with `head_dim` outputs for each query head."""
    output: str
    """The layer whose inputs are the heads."""
    head_bias: str
    """An embedding with a column for each head, or ""."""
    num_heads: int
    num_groups: int
    """Key/value heads; each serves `num_heads / num_groups` query heads that follow one another."""
    head_dim: int

    @property
    def repeats(self) -> int:
        """Query heads for each key/value head."""
        return self.num_heads // self.num_groups

    @property
    def heads_axis(self) -> str:
        """Name of the axis of its query heads in a cut."""
        return f"{self.name}:heads"

    @property
    def groups_axis(self) -> str:
        """Name of the axis of its key/value heads, if they are fewer."""
        return f"{self.name}:groups"

    def columns(self, head: int) -> range:
        """Inputs of `output` that a query head gives."""
        return range(head * self.head_dim, (head + 1) * self.head_dim)


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward part of a block."""

    table: FeedForwardTable
    up: tuple[Projection, ...]
    """One, or gate and up; unit `i` is output `i` of each."""
    down: str
    """The layer whose inputs are the units."""
    num_units: int

    @property
    def axis(self) -> str:
        """Name of the axis of its units in a cut."""
        return f"{self.down}:units"


@dataclass(frozen=True)
class Block:
    """One block."""

    name: str
    stack: str
    """The list it is in."""
    attentions: tuple[Attention, ...]
    feed_forward: FeedForward

    @property
    def attention(self) -> Attention:
        """The self-attention."""
        return self.attentions[0]


@dataclass(frozen=True)
class Family:
    """A network's parts."""

    model_type: str
    table: Table
    stacks: tuple[str, ...]
    """Names of the lists of blocks."""
    blocks: tuple[Block, ...]
    hidden_size: int

    def of_stack(self, stack: str) -> tuple[Block, ...]:
        """The blocks of one list."""
        return tuple(block for block in self.blocks if block.stack == stack)


def family(module: nn.Module) -> Family:
    """Find the parts of a network.

    Raises:
        IncompatibleStep: its family has no table here, or it is not built as the table says.
    """
    config: Any = getattr(module, "config", None)
    model_type = str(getattr(config, "model_type", "") or "")
    table = TABLES.get(model_type)
    if table is None:
        what = f"of the family '{model_type}'" if model_type else "no transformer"
        raise IncompatibleStep(
            f"the network ({type(module).__name__}) is {what}, so where its heads, FFN units and hidden states are "
            "is not known",
            expected=f"a network of one of the families {', '.join(TABLES)}",
            fix="choose a base of such a family",
        )
    stacks = _stacks(module, table)
    blocks = tuple(
        _block(module, table, stack, index)
        for stack in stacks
        for index in range(len(_children(module, stack)))
    )
    query = module.get_submodule(blocks[0].attention.query.layer)
    return Family(model_type, table, stacks, blocks, matrix(query).shape[1])


def _stacks(module: nn.Module, table: Table) -> tuple[str, ...]:
    """The lists that the table names, wherever the base model lies in the module."""
    names = _names(module)
    found = [[name for name in names if is_named(name, (stack,))] for stack in table.stacks]
    if not any(found) or any(len(each) > 1 for each in found):
        raise _unlike(module, f"its blocks are not in one list `{table.stacks[0]}`")
    return tuple(name for each in found for name in each)


def _names(module: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, _ in module.named_modules())


def is_named(name: str, endings: Sequence[str]) -> bool:
    """Whether a name is one of `endings`, or ends with one after a dot."""
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _children(module: nn.Module, name: str) -> list[str]:
    return [child for child, _ in module.get_submodule(name).named_children()]


def _block(module: nn.Module, table: Table, stack: str, index: int) -> Block:
    name = f"{stack}.{index}"
    inside = _names(module.get_submodule(name))
    attentions = tuple(
        _attention(module, name, each) for each in table.attention if each.name in inside
    )
    parts = [each for each in table.feed_forward if {*each.up, each.down} <= {*inside}]
    if not attentions or not parts:
        raise _unlike(module, f"its block {name} is built otherwise")
    return Block(name, stack, attentions, _feed_forward(module, name, parts[0]))


def _attention(module: nn.Module, block: str, table: AttentionTable) -> Attention:
    def named(name: str) -> str:
        return f"{block}.{name}"

    head_dim = int(getattr(module.get_submodule(named(table.name)), table.head_dim))
    width = matrix(module.get_submodule(named(table.output))).shape[1]
    rows = matrix(module.get_submodule(named(table.key))).shape[0]
    fused = table.query == table.key
    kv_width = (rows - width) // 2 if fused else rows
    starts = (0, width, width + kv_width) if fused else (0, 0, 0)
    query, key, value = (
        Projection(named(layer), start, start + size, head_dim)
        for layer, start, size in zip(
            (table.query, table.key, table.value), starts, (width, kv_width, kv_width), strict=True
        )
    )
    present = _names(module.get_submodule(block))
    return Attention(
        table=table,
        name=named(table.name),
        query=query,
        key=key,
        value=value,
        by_head=tuple(named(each) for each in table.by_head if each in present),
        output=named(table.output),
        head_bias=named(table.head_bias) if table.head_bias and table.head_bias in present else "",
        num_heads=width // head_dim,
        num_groups=kv_width // head_dim,
        head_dim=head_dim,
    )


def _feed_forward(module: nn.Module, block: str, table: FeedForwardTable) -> FeedForward:
    down = f"{block}.{table.down}"
    num_units = matrix(module.get_submodule(down)).shape[1]
    up: list[Projection] = []
    for layer in table.up:
        start = num_units * sum(each.layer == f"{block}.{layer}" for each in up)
        up.append(Projection(f"{block}.{layer}", start, start + num_units, 1))
    return FeedForward(table, tuple(up), down, num_units)


def _unlike(module: nn.Module, detail: str) -> IncompatibleStep:
    return IncompatibleStep(
        f"the network ({type(module).__name__}) is not built as those of its family are: {detail}",
        expected="a network as transformers builds it from its configuration",
        fix="choose another base",
    )
