"""What is recorded of a network that was cut, and what must then hold between its tensors and those of its parent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Weights
from reuselib.errors import IntegrityError
from reuselib.lineage.structure import Structure, is_count, is_list, is_text, malformed
from reuselib.measure.claims import same_bits, truly_new
from reuselib.network.cutting import Axis, Cut
from reuselib.pruning.budget import SLACK

if TYPE_CHECKING:
    from reuselib.adapter import Json

ENDINGS = {"heads": ":heads", "ffn": ":units", "hidden": "hidden"}
"""By option: how the names of its axes in a cut end."""
MAX_BLOCKS = 100_000
"""In a list; more is no network."""
GROUPS = ":groups"
"""How those of key/value heads end, if they are fewer."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The structure of a child that was cut out of its parent; names are those before the cut."""

    cut: Cut
    stacks: Sequence[tuple[str, int]] = ()
    """The lists of blocks, in the order in which blocks are counted, and how many each had."""
    new: Sequence[str] = ()
    """Tensors that the parent does not hold, such as those of a new head."""
    tied: Sequence[Sequence[str]] = ()
    """Groups of names of which each stands for one tensor, which is stored under one of them."""

    def to_json(self) -> dict[str, Json]:
        """As manifests hold it; `of_json` reads it back."""
        return {
            "cut": self.cut.to_json(),
            "stacks": [[name, size] for name, size in self.stacks],
            "new": list(self.new),
            "tied": [list(group) for group in self.tied],
        }

    @classmethod
    def of_json(cls, value: Json) -> Record:
        """Read what `to_json` gave.

        Raises:
            IntegrityError: it is no such record.
        """
        record = Structure.read(value, ("cut", "stacks", "new", "tied"))
        return cls(
            cut=Cut.of_json(record.values["cut"]),
            stacks=[_stack(each) for each in record.items("stacks")],
            new=record.names("new"),
            tied=record.groups("tied"),
        )

    @property
    def gone(self) -> set[int]:
        """The blocks that were dropped."""
        found: set[int] = set()
        start = 0
        for name, size in self.stacks:
            axis = self.cut.blocks.get(name)
            found |= {start + i for i in range(size) if axis is not None and i not in axis.keep}
            start += size
        return found


def cut_out(parent: Weights, child: Weights, record: Record) -> Iterable[Finding]:
    """Every tensor of the child is what the cut leaves of the parent's, bit for bit; nothing is lost or added."""
    renamed, new = record.cut.renamed, record.new
    came_from = {now: name for name in (*parent, *new) if (now := renamed(name)) is not None}
    groups = [{renamed(name) for name in group} for group in record.tied]
    yield _names(set(child), set(came_from), groups)
    for group in record.tied:
        held = [name for name in group if name in parent]
        for name in group:
            if held and name not in parent and (now := renamed(name)) is not None:
                came_from[now] = held[0]
    yield _survivors(parent, child, record.cut, came_from)
    yield from _truly_tied(parent, record.tied)
    yield truly_new(new, parent)


def _truly_tied(parent: Weights, tied: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """What is recorded as one tensor under several names is one in the parent, where that holds several."""
    for group in tied:
        held = [name for name in group if name in parent]
        odd = next((n for n in held[1:] if not same_bits(parent[n], parent[held[0]])), "")
        if odd or not held:
            claim = "what is recorded as tied is one tensor of the parent"
            yield Finding(
                claim, False, f"tied to {held[0]}" if odd else "not there", odd or group[0]
            )
            return


def as_asked(
    record: Record,
    shares: Mapping[str, float | None],
    blocks: Sequence[int],
    *,
    uniform: bool = False,
) -> Iterable[Finding]:
    """No more was left out than the configuration says, and something of everything that it names.

    Args:
        record: of the child.
        shares: by option, see `ENDINGS`, the share that was to go.
        blocks: those that were to go; negative ones count from the end.
        uniform: whether each part was to lose its share, rather than all of them together.
    """
    for option, ending in ENDINGS.items():
        share = shares[option] or 0.0
        axes = [axis for name, axis in record.cut.axes.items() if name.endswith(ending)]
        size = sum(axis.size for axis in axes)
        gone = size - sum(len(axis.keep) for axis in axes)
        if share or gone:
            holds = gone <= int(share * size + SLACK) and (gone > 0) == (share > 0)
            claim = f"{option}: at most the claimed share of {share:g} is left out"
            yield Finding(claim, holds, f"{gone} of {size}")
        if uniform and share:
            claim = f"{option}: every part of the network loses the same share"
            name = _uneven(record, ending, share)
            yield Finding(claim, not name, name)
    odd = next(_uncounted(record.cut.axes), "")
    if record.cut.axes:
        yield Finding(
            "nothing is left out but heads with their key/value heads, units and hidden channels",
            not odd,
            odd,
        )
    num_blocks = sum(size for _, size in record.stacks)
    asked = {index + num_blocks if index < 0 else index for index in blocks}
    if asked or record.cut.blocks:
        unknown = set(record.cut.blocks) - {name for name, _ in record.stacks}
        yield Finding(
            "the blocks that are left out are those that the configuration names",
            record.gone == asked and not unknown,
            f"{sorted(record.gone)} of {num_blocks}",
        )


def _uneven(record: Record, ending: str, share: float) -> str:
    """An axis that lost nothing, more than its share, or another part than one of its size."""
    lost: dict[int, int] = {}
    for name, axis in record.cut.axes.items():
        if not name.endswith(ending):
            continue
        gone = axis.size - len(axis.keep)
        if not 0 < gone <= int(share * axis.size + SLACK):
            return f"{name} lost {gone} of {axis.size}"
        if lost.setdefault(axis.size, gone) != gone:
            return f"{name} lost {gone} of {axis.size}, another part {lost[axis.size]}"
    return ""


def _uncounted(axes: Mapping[str, Axis]) -> Iterator[str]:
    """Axes that no share counts. Key/value heads are counted by the heads that they serve."""
    for name, axis in axes.items():
        if name.endswith(tuple(ENDINGS.values())):
            continue
        owner, ending, rest = name.rpartition(GROUPS)
        heads = axes.get(f"{owner}{ENDINGS['heads']}") if ending and not rest else None
        if heads is None or heads.size % axis.size:
            yield name
            continue
        repeats = heads.size // axis.size
        if {head // repeats for head in heads.keep} != {*axis.keep}:
            yield name


def _names(found: set[str], wanted: set[str], groups: Sequence[set[str | None]]) -> Finding:
    def stored_otherwise(name: str, there: set[str]) -> bool:
        return any(name in group and group & there for group in groups)

    lacking = [n for n in sorted(wanted - found) if not stored_otherwise(n, found)]
    extra = [n for n in sorted(found - wanted) if not stored_otherwise(n, wanted)]
    odd = (lacking + extra)[:1]
    detail = "" if not odd else "missing in the child" if lacking else "not what the cut leaves"
    return Finding(
        "the child's tensors are those that the cut leaves", not odd, detail, "".join(odd)
    )


def _survivors(parent: Weights, child: Weights, cut: Cut, came_from: Mapping[str, str]) -> Finding:
    claim = "every tensor is what the recorded cut leaves of the parent's, bit for bit"
    num_compared = 0
    for name in child:
        source = came_from.get(name, "")
        if source not in parent:
            continue
        try:
            wanted = cut.survivor(source, parent[source])
        except IntegrityError as error:
            return Finding(claim, False, error.what, name)
        if not same_bits(child[name], wanted):
            return Finding(claim, False, "differs from what the cut leaves", name)
        num_compared += 1
    return Finding(
        claim, num_compared > 0, f"{num_compared} tensors compared", compared=num_compared
    )


def _stack(value: Json) -> tuple[str, int]:
    if is_list(value) and len(value) == 2:
        name, size = value
        if is_text(name) and is_count(size) and size <= MAX_BLOCKS:
            return name, size
    raise malformed("structure.stacks must hold names and sizes")
