"""What must be known of a family of transformers to cut a network of it: the form of `tables`.

Names are relative to a block in `AttentionTable` and `FeedForwardTable`, to the network elsewhere; `*` matches any
part of a name. A layer that is named several times is fused: the outputs follow one another in that order. What a
table does not say is not done: a network whose tensors it does not cover is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class AttentionTable:
    """One attention of a block."""

    name: str
    """The submodule that computes it, whose attributes follow its size."""
    query: str
    key: str
    value: str
    output: str
    head_dim: str
    """Attribute of the submodule that holds the width of a head."""
    attributes: Mapping[str, str]
    """Attributes to correct, each with what it holds: heads, groups, repeats (query heads a group), width (heads
    times their width) or hidden."""
    by_head: tuple[str, ...] = ()
    """Further layers with an output for each query head, where present."""
    head_bias: str = ""
    """An embedding with a column for each head, where present."""
    norms: tuple[str, ...] = ()
    """Norms over one head, which all heads share."""
    config_key: str = ""
    """The number of heads that the submodule reads from its configuration at every call."""


@dataclass(frozen=True, kw_only=True)
class FeedForwardTable:
    """The feed-forward part of a block."""

    up: tuple[str, ...]
    """Layers whose outputs are the units: one, or gate and up."""
    down: str
    """The layer whose inputs are the units."""
    attribute: str = ""
    """An attribute of a submodule of the block that holds the number of units, if there is one."""


@dataclass(frozen=True, kw_only=True)
class ConfigKeys:
    """How the configuration calls a number; "" if it has no key for it."""

    hidden: tuple[str, ...] = ("hidden_size",)
    heads: str = "num_attention_heads"
    groups: str = ""
    """Key/value heads, if they may be fewer than the query heads."""
    head_dim: str = ""
    """Width of a head, if it may differ from hidden width by heads."""
    units: str = "intermediate_size"
    blocks: tuple[str, ...] = ("num_hidden_layers",)
    """One for each stack."""
    per_block: tuple[str, ...] = ()
    """Lists with an entry for each block."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is known about one family."""

    stacks: tuple[str, ...]
    """Lists of blocks, first to last; one that is absent, such as the decoder of an encoder, is passed over."""
    attention: tuple[AttentionTable, ...]
    """Those that a block may have; absent ones are passed over."""
    feed_forward: tuple[FeedForwardTable, ...]
    """Of these, a block has the first whose layers it has."""
    config: ConfigKeys
    norms: tuple[str, ...]
    """Modules whose every parameter is as long as the hidden state."""
    embeddings: tuple[str, ...]
    """Modules whose rows are hidden states."""
    reads: tuple[str, ...]
    """Layers outside the blocks whose input is the hidden state."""
    writes: tuple[str, ...] = ()
    """Layers outside the blocks whose output is as long as the hidden state."""
    raw: tuple[str, ...] = ()
    """Parameters whose last dimension is the hidden state."""
    aloof: tuple[str, ...] = ()
    """Parameters that do not depend on the hidden width."""
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Attributes of submodules, wherever they occur, that hold the `hidden` width, its `root` or the number of
    `blocks`."""
    first_block_holds: str = ""
    """A module that lies in the first block of a stack, or is wired to it, but serves all blocks."""
    one_set_of_heads: bool = False
    """Whether what is computed for the heads of the first block is used in all blocks, so that heads of one
    number belong together."""
