"""A lineage that grows from some models towards their bases, manifest by manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from reuselib.errors import IntegrityError
from reuselib.forensics.graph import Change, Edge, Node, Trace
from reuselib.forensics.settings import settings_that_matter
from reuselib.lineage import canonical
from reuselib.lineage.chain import ANCESTORS, MAX_DEPTH, MAX_NODES, read_parent
from reuselib.lineage.descriptors import Parent
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.record import METRICS
from reuselib.lineage.tiers import Tier

Find = Callable[[Parent, Path], "bytes | None"]
"""The bytes of a parent's manifest, for a child that was read in that folder."""
Place = Callable[[Manifest], "Path | None"]
"""The folder of an ancestor that is at hand, if it is."""


@dataclass
class Growth:
    """A graph that grows from some models towards their bases."""

    find: Find
    place: Place
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    fresh: list[tuple[str, Manifest, Path]] = field(default_factory=list)
    """Nodes whose parents were not looked at yet, with the folder that their history was read from."""

    def add(self, data: bytes, manifest: Manifest, folder: Path) -> str:
        """A model with its manifest; return its id."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.nodes:
            own = folder if manifest.derivation_id else None
            self.nodes[digest] = _node(digest, manifest, own)
            self.fresh.append((digest, manifest, folder))
        return digest

    def add_broken(self, name: str, why: str) -> None:
        """A folder whose manifest says nothing."""
        name_ = f"broken:{name}"
        self.nodes[name_] = Node(id=name_, name=name, relation="unknown", problem=why)

    def climb(self, *, max_depth: int | None = None) -> None:
        """Add all ancestors, one generation after the other."""
        depth = 0
        while self.fresh:
            if max_depth is not None and (depth > max_depth or len(self.nodes) > MAX_NODES):
                raise IntegrityError(
                    "LIMIT",
                    f"more than {MAX_DEPTH} generations or {MAX_NODES} models",
                    path=ANCESTORS,
                )
            generation, self.fresh = self.fresh, []
            for child, manifest, folder in generation:
                for parent in manifest.parents:
                    self._tie(child, parent, folder)
            depth += 1

    def _tie(self, child: str, parent: Parent, folder: Path) -> None:
        """Add the edge to a parent, and the parent if it is new."""
        digest = parent.manifest_sha256
        if known := self.nodes.get(digest):
            same = (known.dir_hash, known.tensor_hash) == (
                parent.digests.dir_hash,
                parent.digests.tensor_hash,
            )
            why = "" if same else "PARENT_MISMATCH: the parent's manifest is about another model"
            self._edge(child, digest, parent, "recorded" if same else "broken", why)
            return
        data = self.find(parent, folder)
        if data is None:
            self._edge(child, self._unread(parent, ""), parent, "missing", "no manifest at hand")
            return
        try:
            manifest = read_parent(parent, data)
        except IntegrityError as error:
            self._edge(child, self._unread(parent, error.what), parent, "broken", error.what)
            return
        self.nodes[digest] = _node(digest, manifest, self.place(manifest))
        self.fresh.append((digest, manifest, folder))
        self._edge(child, digest, parent, "recorded")

    def _unread(self, parent: Parent, problem: str) -> str:
        """A parent of which nothing is known but what its child says."""
        name = f"{'broken' if problem else 'missing'}:{parent.manifest_sha256}"
        self.nodes.setdefault(
            name,
            Node(
                id=name,
                name=parent.uri or parent.name,
                relation="unknown",
                dir_hash=parent.digests.dir_hash,
                tensor_hash=parent.digests.tensor_hash,
                uri=parent.uri,
                problem=problem,
            ),
        )
        return name

    def _edge(self, child: str, above: str, parent: Parent, tier: Tier, why: str = "") -> None:
        self.edges.append(Edge(child=child, parent=above, role=parent.role, tier=tier, why=why))

    def break_off(self, head: str, why: str) -> None:
        """Say of a model that it is not what its manifest describes."""
        self.nodes[head] = replace(self.nodes[head], problem=why)
        self.edges = [
            replace(edge, tier="broken", why=why) if edge.child == head else edge
            for edge in self.edges
        ]

    def trace(
        self, heads: tuple[str, ...], unchecked: tuple[str, ...], *, downwards: bool
    ) -> Trace:
        """What has grown."""
        return Trace(tuple(self.nodes.values()), tuple(self.edges), heads, downwards, unchecked)


def _node(digest: str, manifest: Manifest, folder: Path | None) -> Node:
    definition, details = manifest.definition, manifest.details
    rows = [each.uri for each in definition.dependencies if each.role == "dataset"]
    times = [each.isoformat() if each else "" for each in (details.started, details.finished)]
    source = definition.recipe.get("source") if definition.adapter is None else None
    return Node(
        id=digest,
        name=manifest.name,
        relation=manifest.relation,
        adapter=definition.adapter,
        settings=settings_that_matter(definition.adapter, definition.recipe)
        if definition.adapter
        else {},
        change=recorded_change(manifest, folder) if folder else None,
        dir_hash=manifest.digests.dir_hash,
        tensor_hash=manifest.digests.tensor_hash,
        uri=source if isinstance(source, str) else "",
        data=rows[0] if rows else "",
        started=times[0],
        finished=times[1],
    )


def recorded_change(manifest: Manifest, folder: Path) -> Change | None:
    """What the folder's figures say, if they are those that the manifest binds."""
    bound = {each.name: each.digest.get("sha256") for each in manifest.details.byproducts}
    path = folder / METRICS
    try:
        if METRICS not in bound or not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(canonical.MAX_BYTES + 1)
        if hashlib.sha256(data).hexdigest() != bound[METRICS]:
            return None
        figures = canonical.loads(data)
    except (OSError, IntegrityError):
        return None
    match figures:
        case {"metric": str(metric), "after": {**after}, "before": {**before}}:
            value, was = after.get(metric), before.get(metric)
            if isinstance(value, int | float):
                return Change(
                    metric=metric, before=was if isinstance(was, int | float) else None, after=value
                )
    return None
