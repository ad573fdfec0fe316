"""A lineage as a graph: models, and what ties each to those it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from reuselib.lineage.tiers import Tier, weakest

if TYPE_CHECKING:
    from reuselib.adapter import Json

Form = Literal["dot", "mermaid", "prov"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """The metric that decides, on one and the same set of rows."""

    metric: str
    before: float | None
    """Of the parent."""
    after: float


@dataclass(frozen=True, kw_only=True)
class Node:
    """One model, as its own manifest or somebody else's describes it."""

    id: str
    """The sha256 of its manifest; of a model without one, something else that is unique in the graph."""
    name: str
    relation: str
    """`import` for a base, `unknown` if there is no manifest."""
    adapter: str | None = None
    settings: Mapping[str, Json] = field(default_factory=dict)
    """What of the adapter's configuration differs from its defaults."""
    change: Change | None = None
    """None if it was not measured, or the figures are not at hand."""
    dir_hash: str = ""
    tensor_hash: str = ""
    uri: str = ""
    data: str = ""
    """Where the rows came from that it was made on."""
    started: str = ""
    finished: str = ""
    problem: str = ""
    """Why nothing that its manifest says can be relied on."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A child, and one model that it was made from."""

    child: str
    parent: str
    role: str
    """What the parent was to the child, such as `base` or `teacher`."""
    tier: Tier
    why: str = ""
    """If it is less than recorded."""


@dataclass(frozen=True)
class Line:
    """One line of the graph as a tree."""

    depth: int
    is_last: tuple[bool, ...]
    """For each level, whether this branch is the last of its kind there."""
    node: Node
    edge: Edge | None
    """By which it hangs on the line above; None for a head."""
    again: bool
    """The same node was drawn before with all that hangs on it."""


@dataclass(frozen=True)
class Trace:
    """Where models came from: a graph without cycles."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    heads: tuple[str, ...]
    """Where a drawing as a tree begins: the model that was asked for, or the bases of a store."""
    downwards: bool
    """Whether the tree goes from parents to children."""
    unchecked: tuple[str, ...]
    """What a reader might believe was checked, and was not."""
    signer: str = ""
    """Who signed it, if a policy was given and trusts the signature."""

    @property
    def tier(self) -> Tier:
        """What the whole is worth: its weakest edge."""
        return weakest(edge.tier for edge in self.edges)

    @property
    def ok(self) -> bool:
        """Whether nothing that was looked at is broken."""
        return self.tier != "broken" and not any(node.problem for node in self.nodes)

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """The nodes."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def _parents(self) -> Mapping[str, list[Edge]]:
        return _grouped((edge.child, edge) for edge in self.edges)

    @cached_property
    def _children(self) -> Mapping[str, list[Edge]]:
        return _grouped((edge.parent, edge) for edge in self.edges)

    def parents(self, node: str) -> list[Edge]:
        """The edges to what a node was made from, in the order of its manifest."""
        return self._parents.get(node, [])

    def lines(self) -> Iterator[Line]:
        """The graph as a tree, line by line. A node that hangs in several places is drawn out in the first."""
        below = self._children if self.downwards else self._parents
        drawn: set[str] = set()
        # a stack rather than recursion: how deep it goes is a stranger's choice
        left = [
            Line(0, (at == len(self.heads) - 1,), self.by_id[head], None, False)
            for at, head in enumerate(self.heads)
        ][::-1]
        while left:
            line = left.pop()
            edges = below.get(line.node.id, [])
            again = bool(edges) and line.node.id in drawn
            if self.downwards and line.edge is not None:
                # drawn out under the model that its step began with, not under a teacher
                again = self._parents[line.node.id][0] is not line.edge
            yield replace(line, again=again)
            if again:
                continue
            drawn.add(line.node.id)
            for at in range(len(edges) - 1, -1, -1):
                edge = edges[at]
                end = edge.child if self.downwards else edge.parent
                is_last = (*line.is_last, at == len(edges) - 1)
                left.append(Line(line.depth + 1, is_last, self.by_id[end], edge, False))

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "ok": self.ok,
            "tier": self.tier,
            "signer": self.signer,
            "heads": list(self.heads),
            "nodes": [asdict(node) for node in self.nodes],
            "edges": [asdict(edge) for edge in self.edges],
            "unchecked": list(self.unchecked),
        }

    def drawn(self, form: Form) -> str:
        """As text for other tools: Graphviz `dot`, `mermaid`, or W3C PROV-JSON (`prov`)."""
        from reuselib.forensics.drawing import draw

        return draw(self, form)


def _grouped(edges: Iterable[tuple[str, Edge]]) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = {}
    for key, edge in edges:
        found.setdefault(key, []).append(edge)
    return found
