"""Which model was probably made from which, from weights alone: a forest over undocumented models. A guess throughout.

Related models are joined by the shortest spanning tree over a distance between weights; what shows in the weights
(integers, zeros, what is missing, a new head) and then the tree's centre say which end of an edge came first. The idea
of a tree over weight distances with cues for its direction is from Horwitz et al., "Unsupervised Model Tree Heritage
Recovery" (ICLR 2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import SourceError
from reuselib.forensics.changes import TensorChange, changes
from reuselib.forensics.likeness import Evidence, Relation
from reuselib.forensics.matching import block_of
from reuselib.forensics.naming import names_of
from reuselib.forensics.relation import relate
from reuselib.forensics.view import INTEGER, View
from reuselib.lineage.headers import NUM_BITS
from reuselib.lineage.tiers import Tier

if TYPE_CHECKING:
    from reuselib.adapter import Json

_NEAREST_STEP = 0.51
"""Steps of a grid within which codes are those of rounding to the nearest, with room for the last bit."""
_UNCHECKED = (
    "everything but the weights: whoever made them may say otherwise, and be right",
    "second parents: of a merge of several models, at most the nearest is found",
    "models that are not among these: a sibling is taken for a parent if the parent is missing",
    "which end came first, where an edge says `--`: weights show no sign of it",
)


@dataclass(frozen=True, kw_only=True)
class KinEdge:
    """A proposal: `child` was made from `parent`, or both are near to a third."""

    parent: str
    child: str
    score: float
    """How near they are: 1 where one follows from the other bit by bit, 0 where they are as far as strangers."""
    directed: bool
    """Whether something in the weights says which came first; if not, the order is only that of the tree."""
    reason: str
    tier: Tier = "inferred"


@dataclass(frozen=True)
class Kinship:
    """A forest over models."""

    models: tuple[str, ...]
    edges: tuple[KinEdge, ...]
    alone: tuple[str, ...]
    """Models that are related to none of the others."""
    unchecked: tuple[str, ...] = _UNCHECKED

    @property
    def roots(self) -> tuple[str, ...]:
        """Where each tree begins."""
        below = {edge.child for edge in self.edges}
        return tuple(name for name in self.models if name not in below and name not in self.alone)

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "tier": "inferred",
            "models": list(self.models),
            "roots": list(self.roots),
            "edges": [asdict(edge) for edge in self.edges],
            "alone": list(self.alone),
            "unchecked": list(self.unchecked),
        }


@dataclass(frozen=True)
class _Link:
    """Two related models, by their place in the list."""

    ends: tuple[int, int]
    distance: float
    child: int | None
    """Which of the two shows signs of being the later one."""


def kin(folders: Sequence[Path]) -> Kinship:
    """Propose parents among models. Every pair is compared, so the time grows with the square of their number.

    Raises:
        SourceError: there are fewer than two, or one is not there, holds no model, or is named twice.
        IntegrityError: a folder or its weights cannot be read safely, as for `diff`.
    """
    if len(folders) < 2:
        raise SourceError("kin compares models, so it needs two or more", fix="name more folders")
    folders = sorted(folders, key=lambda folder: folder.resolve().parts)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise SourceError("a model is named twice", fix="name each folder once")
    names = names_of(folders)
    views = [View.of(folder) for folder in folders]
    pairs = combinations(range(len(views)), 2)
    links = [link for one, other in pairs if (link := _link(views, one, other))]
    trees = _spanning_trees(len(views), sorted(links, key=lambda link: _order(link, views)))
    edges: list[KinEdge] = []
    for tree in trees:
        root = _root(tree)
        edges += [_edge(views, names, link, parent) for link, parent in _oriented(tree, root)]
    tied = {end for tree in trees for link in tree for end in link.ends}
    alone = tuple(name for at, name in enumerate(names) if at not in tied)
    return Kinship(tuple(names), tuple(sorted(edges, key=_by_name)), alone)


def _compared(views: Sequence[View], one: int, other: int, *, brief: bool) -> Evidence:
    matching, found = changes(views[one], views[other], brief=brief)
    return Evidence(views[one], views[other], matching, found)


def _link(views: Sequence[View], one: int, other: int) -> _Link | None:
    evidence = _compared(views, one, other, brief=True)
    relation = relate(evidence)
    if not relation.is_related:
        return None
    child = {"A": one, "B": other}.get(relation.child)
    if child is None:
        child = _with_new_head(evidence, one, other)
    return _Link((one, other), distance(relation, evidence.changes), child)


def distance(relation: Relation, compared: Sequence[TensorChange]) -> float:
    """From 0, one follows from the other bit by bit, to 1, as far as strangers.

    The root mean square over all weights of both models of how far each tensor moved, relative to its norm; 0 for
    one that was only rounded, masked or cut.
    """
    if relation.kind == "adapter":
        # names and shapes fit every relative of its base alike
        return 1 - relation.score / 2
    total = square = 0.0
    for change in compared:
        far = _moved(change)
        if far is not None:
            total += change.num_elements
            square += change.num_elements * far**2
    return math.sqrt(square / total) if total else 1.0


def _moved(change: TensorChange) -> float | None:
    """How far one tensor moved; None if that cannot be told."""
    if change.kind in ("identical", "cast"):
        return 0.0
    if change.kind == "reshaped":
        return None if change.cut is None else 1 - change.cut.found / max(change.cut.of, 1)
    gap = change.delta
    if gap is None or change.kind != "changed" or len(change.shapes[0]) < 2:
        return None
    if change.steps is not None and change.steps <= _NEAREST_STEP:
        return 0.0
    kept = gap.num - max(gap.zeros)
    if max(gap.lost, gap.gained) > 0.05 * gap.num and gap.same == kept > 8:
        return 0.0
    both = math.sqrt(gap.norms[0] * gap.norms[1])
    return min(1.0, gap.l2 / both) if both else 1.0


def _with_new_head(evidence: Evidence, one: int, other: int) -> int | None:
    """The model that has tensors of its own outside all blocks, if only one has."""
    added, removed = (
        [c for c in evidence.of(kind) if block_of(c.name) is None and _is_trained(c)]
        for kind in ("added", "removed")
    )
    if bool(added) == bool(removed):
        return None
    return other if added else one


def _is_trained(change: TensorChange) -> bool:
    """Whether it holds weights, unlike positions and other counts that one library stores and another does not."""
    return any("F" in dtype for dtype in change.dtypes)


def _order(link: _Link, views: Sequence[View]) -> tuple[float, int, tuple[int, int]]:
    """Nearest first; of equal ones those between the models that hold most."""
    return (link.distance, -sum(_num_bits(views[end]) for end in link.ends), link.ends)


def _num_bits(view: View) -> int:
    return sum(
        weight.num_elements * (INTEGER.get(weight.dtype) or NUM_BITS.get(weight.dtype, 0))
        for weight in view.weights.values()
    )


def _spanning_trees(num_models: int, links: Sequence[_Link]) -> list[list[_Link]]:
    """Kruskal's algorithm: each link, shortest first, that joins what was not joined yet."""
    tree_of = list(range(num_models))
    chosen: list[_Link] = []
    for link in links:
        one, other = (tree_of[end] for end in link.ends)
        if one != other:
            tree_of = [one if tree == other else tree for tree in tree_of]
            chosen.append(link)
    trees: dict[int, list[_Link]] = {}
    for link in chosen:
        trees.setdefault(tree_of[link.ends[0]], []).append(link)
    return [*trees.values()]


def _root(tree: Sequence[_Link]) -> int:
    """The model from which the fewest edges lead against the signs, and the nearest to all others of those."""
    models = sorted({end for link in tree for end in link.ends})

    def cost(root: int) -> tuple[int, float, int]:
        oriented = _oriented(tree, root)
        against = sum(link.child == parent for link, parent in oriented)
        depth: dict[int, float] = {root: 0.0}
        for link, parent in oriented:
            child = link.ends[1] if link.ends[0] == parent else link.ends[0]
            depth[child] = depth[parent] + link.distance
        return (against, sum(depth.values()), root)

    return min(models, key=cost)


def _oriented(tree: Sequence[_Link], root: int) -> list[tuple[_Link, int]]:
    """The edges with the end that is nearer to the root, from the root outwards."""
    around: dict[int, list[_Link]] = {}
    for link in tree:
        for end in link.ends:
            around.setdefault(end, []).append(link)
    found: list[tuple[_Link, int]] = []
    seen, left = {root}, [root]
    while left:
        parent = left.pop(0)
        for link in around.get(parent, []):
            child = link.ends[1] if link.ends[0] == parent else link.ends[0]
            if child not in seen:
                seen.add(child)
                left.append(child)
                found.append((link, parent))
    return found


def _edge(views: Sequence[View], names: Sequence[str], link: _Link, parent: int) -> KinEdge:
    child = link.ends[1] if link.ends[0] == parent else link.ends[0]
    text = relate(_compared(views, parent, child, brief=False)).text
    return KinEdge(
        parent=names[parent],
        child=names[child],
        score=round(1 - link.distance, 6),
        directed=link.child == child,
        reason=_named(text, {"A": names[parent], "B": names[child]}),
    )


def _named(text: str, names: Mapping[str, str]) -> str:
    return " ".join(names.get(word, word) for word in text.split(" "))


def _by_name(edge: KinEdge) -> tuple[str, str]:
    return edge.parent, edge.child
