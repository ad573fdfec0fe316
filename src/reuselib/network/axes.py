"""Which entries of which tensors belong to a head, an FFN unit, a hidden channel or a block: from a choice to a cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from reuselib.errors import IncompatibleStep
from reuselib.network.cutting import Axis, Cut, Dims, Run
from reuselib.network.families import Attention, Family, FeedForward, Projection, family, is_named
from reuselib.network.layers import dims

if TYPE_CHECKING:
    from torch import Tensor, nn

HIDDEN = "hidden"
"""Name of the axis of the hidden state."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is to stay; what is not named stays whole."""

    heads: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    """Query heads, by name of the attention. A key/value head stays if a query head of its group does."""
    units: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    """FFN units, by name of the block."""
    hidden: Sequence[int] | None = None
    """Channels of the hidden state."""
    blocks: Sequence[int] | None = None
    """Blocks, counted as `block[i]` counts them; heads and units that are named stay within them."""


def plan(module: nn.Module, keep: Keep) -> Cut:
    """Work out the cut that leaves what is chosen.

    Raises:
        IncompatibleStep: the network's family has no table, nothing would be left of something, the groups of an
            attention would keep unequal numbers of heads, a block that serves the others would go, or a tensor's
            part in the hidden state is not known.
    """
    found = family(module)
    draft = _Draft(module)
    blocks = _block_axes(found, keep.blocks)
    _refuse_lost_holder(draft, found, blocks)
    _refuse_crossed_heads(found, keep.heads)
    for attention in (each for block in found.blocks for each in block.attentions):
        if attention.name in keep.heads:
            _add_heads(draft, attention, keep.heads[attention.name])
    for block in found.blocks:
        if block.name in keep.units:
            _add_units(draft, block.feed_forward, keep.units[block.name])
    if keep.hidden is not None:
        _add_hidden(draft, found, keep.hidden)
    return draft.finish(blocks)


def layout(module: nn.Module, *, hidden: bool) -> Cut:
    """A cut that cuts nothing: every axis of heads and FFN units, and each tensor that lies along one.

    Args:
        module: the network.
        hidden: also the hidden state.

    Raises:
        IncompatibleStep: the network's family has no table, or a tensor's part in the hidden state is not known.
    """
    found = family(module)
    draft = _Draft(module)
    for block in found.blocks:
        for attention in block.attentions:
            _add_heads(draft, attention, range(attention.num_heads))
        _add_units(draft, block.feed_forward, range(block.feed_forward.num_units))
    if hidden:
        _add_hidden(draft, found, range(found.hidden_size))
    return Cut(draft.axes, draft.tensors())


class _Draft:
    """Axes and the dimensions of tensors along them, gathered piece by piece."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.axes: dict[str, Axis] = {}
        self.state: Mapping[str, Tensor] = module.state_dict(keep_vars=True)
        self.runs: dict[str, dict[int, tuple[Run, ...]]] = {}

    def axis(self, name: str, size: int, keep: Sequence[int]) -> str:
        kept = tuple(sorted(set(keep)))
        if not kept or kept[0] < 0 or kept[-1] >= size:
            raise IncompatibleStep(
                f"{list(keep)} is to stay of the {size} of {name}",
                expected=f"at least one index, from 0 to {size - 1}",
            )
        self.axes[name] = Axis(size, kept)
        return name

    def outputs(self, layer: str, runs: tuple[Run, ...]) -> None:
        out_dim, _ = dims(self.module.get_submodule(layer))
        self.along(f"{layer}.weight", out_dim, runs)
        if f"{layer}.bias" in self.state:
            self.along(f"{layer}.bias", 0, runs)

    def inputs(self, layer: str, run: Run) -> None:
        _, in_dim = dims(self.module.get_submodule(layer))
        self.along(f"{layer}.weight", in_dim, (run,))

    def along(self, name: str, dim: int, runs: tuple[Run, ...]) -> None:
        size = sum(self.axes[axis].size * width for axis, width in runs)
        shape = tuple(self.state[name].shape)
        if shape[dim] != size:
            raise IncompatibleStep(
                f"{name} has shape {shape}, but {size} entries of it were to belong to {runs[0][0]}",
                expected="a network as its family's table describes it",
                fix="prune another part",
            )
        self.runs.setdefault(name, {})[dim] = runs

    def tensors(self) -> dict[str, Dims]:
        return {
            name: tuple(runs.get(dim, ()) for dim in range(self.state[name].dim()))
            for name, runs in self.runs.items()
        }

    def finish(self, blocks: Mapping[str, Axis]) -> Cut:
        """The cut, without tensors that lose nothing and what lies in a block that is dropped anyway."""
        dropping = Cut(blocks=blocks)
        tensors = {
            name: dims
            for name, dims in self.tensors().items()
            if dropping.renamed(name) is not None
            and not all(self.axes[axis].is_whole for runs in dims for axis, _ in runs)
        }
        axes = {name: axis for name, axis in self.axes.items() if dropping.renamed(name)}
        return Cut(
            axes, tensors, {name: axis for name, axis in blocks.items() if not axis.is_whole}
        )


def _add_heads(draft: _Draft, attention: Attention, keep: Sequence[int]) -> None:
    heads = draft.axis(attention.heads_axis, attention.num_heads, keep)
    groups = heads
    if attention.repeats > 1:
        groups = draft.axis(attention.groups_axis, attention.num_groups, _groups(attention, keep))
    head, group = (heads, attention.head_dim), (groups, attention.head_dim)
    if attention.query.layer == attention.key.layer:
        draft.outputs(attention.query.layer, (head, group, group))
    else:
        draft.outputs(attention.query.layer, (head,))
        draft.outputs(attention.key.layer, (group,))
        draft.outputs(attention.value.layer, (group,))
    for layer in attention.by_head:
        draft.outputs(layer, (head,))
    if attention.head_bias:
        draft.along(f"{attention.head_bias}.weight", 1, ((heads, 1),))
    draft.inputs(attention.output, head)


def _groups(attention: Attention, keep: Iterable[int]) -> list[int]:
    counts: dict[int, int] = {}
    for head in set(keep):
        group = head // attention.repeats
        counts[group] = counts.get(group, 0) + 1
    if len(set(counts.values())) > 1:
        raise IncompatibleStep(
            f"the key/value heads of {attention.name} would serve {sorted(counts.values())} query heads",
            expected="as many query heads for each key/value head that stays",
        )
    return sorted(counts)


def _add_units(draft: _Draft, part: FeedForward, keep: Sequence[int]) -> None:
    units = (draft.axis(part.axis, part.num_units, keep), 1)
    layers: dict[str, list[Projection]] = {}
    for each in part.up:
        layers.setdefault(each.layer, []).append(each)
    for layer, projections in layers.items():
        draft.outputs(layer, (units,) * len(projections))
    draft.inputs(part.down, units)


def _add_hidden(draft: _Draft, found: Family, keep: Sequence[int]) -> None:
    run = (draft.axis(HIDDEN, found.hidden_size, keep), 1)
    reads, writes, aloof = _ends_of_blocks(found)
    table = found.table
    for name, _ in draft.module.named_modules(remove_duplicate=False):
        if f"{name}.weight" not in draft.state:
            continue
        if name in reads or is_like(name, table.reads):
            draft.inputs(name, run)
        if name in writes or is_like(name, table.writes):
            draft.outputs(name, (run,))
        if is_like(name, table.embeddings):
            draft.along(f"{name}.weight", 1, (run,))
    for name, value in draft.state.items():
        owner = name.rpartition(".")[0]
        if is_like(owner, table.norms) or is_like(name, table.raw):
            draft.along(name, value.dim() - 1, (run,))
        elif name not in draft.runs or not _has(draft.runs[name], HIDDEN):
            known = owner in reads or is_like(owner, table.reads) or owner in aloof
            if not known and not is_like(name, table.aloof):
                raise IncompatibleStep(
                    f"how {name} depends on the hidden state is not known for the family '{found.model_type}'",
                    expected="a network whose parts are all in the family's table",
                    fix="leave `hidden` out; `heads`, `ffn` and `blocks` do not touch that tensor",
                )


def _has(runs: Mapping[int, tuple[Run, ...]], axis: str) -> bool:
    return any(name == axis for along in runs.values() for name, _ in along)


def _ends_of_blocks(found: Family) -> tuple[set[str], set[str], set[str]]:
    """Layers in blocks that read the hidden state, those that write it, and modules that do neither."""
    reads: set[str] = set()
    writes: set[str] = set()
    aloof: set[str] = set()
    for block in found.blocks:
        for each in block.attentions:
            reads |= {each.query.layer, each.key.layer, each.value.layer, *each.by_head}
            writes.add(each.output)
            aloof |= {each.head_bias, *(f"{block.name}.{norm}" for norm in each.table.norms)}
        reads |= {each.layer for each in block.feed_forward.up}
        writes.add(block.feed_forward.down)
    return reads, writes, aloof


def is_like(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name ends, after a dot or as a whole, as one of the patterns of a table says."""
    if is_named(name, patterns):
        return True
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
        for pattern in patterns
        if "*" in pattern
    )


def _refuse_lost_holder(draft: _Draft, found: Family, blocks: Mapping[str, Axis]) -> None:
    held = found.table.first_block_holds
    present = [name for name, _ in draft.module.named_modules() if is_named(name, (held,))]
    if not held or not present:
        return
    for stack, axis in blocks.items():
        if axis.keep[0] != 0:
            raise IncompatibleStep(
                f"the first block of {stack} cannot go: `{held}`, which all blocks rely on, belongs to it",
                expected="the first block to stay",
                fix="drop other blocks",
            )


def _refuse_crossed_heads(found: Family, heads: Mapping[str, Sequence[int]]) -> None:
    """Where all blocks use what the first one computes for its heads, head `i` must mean the same in all."""
    if not found.table.one_set_of_heads:
        return
    chosen: dict[tuple[str, str], set[tuple[int, ...] | None]] = {}
    for block in found.blocks:
        for each in block.attentions:
            kept = tuple(heads[each.name]) if each.name in heads else None
            chosen.setdefault((block.stack, each.table.name), set()).add(kept)
    for (stack, name), sets in chosen.items():
        if len(sets) > 1:
            raise IncompatibleStep(
                f"the blocks of {stack} would keep different heads of {name}, but share what is computed for each",
                expected="the same heads in all blocks",
            )


def _block_axes(found: Family, keep: Sequence[int] | None) -> dict[str, Axis]:
    if keep is None:
        return {}
    kept = set(keep)
    num_blocks = len(found.blocks)
    if not kept or min(kept) < 0 or max(kept) >= num_blocks:
        raise IncompatibleStep(
            f"blocks {sorted(kept)} are to stay, but the network has blocks 0 to {num_blocks - 1}",
            expected="at least one block that the network has",
        )
    axes: dict[str, Axis] = {}
    start = 0
    for stack in found.stacks:
        size = len(found.of_stack(stack))
        here = tuple(index for index in range(size) if start + index in kept)
        if not here:
            raise IncompatibleStep(
                f"no block would stay in {stack} (blocks {start} to {start + size - 1})",
                expected="at least one block in every stack",
            )
        axes[stack] = Axis(size, here)
        start += size
    return axes
