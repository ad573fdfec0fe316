"""Where a model came from, from what lies in its own folder; and what a store holds, under what it was made from.

Manifests are read, hashed and held against one another. No weights are read and torch is not imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from reuselib.errors import IntegrityError, ReuseError, SourceError
from reuselib.forensics.declared import declared_parents
from reuselib.forensics.graph import Change, Edge, Node, Trace
from reuselib.forensics.settings import settings_that_matter
from reuselib.lineage import canonical
from reuselib.lineage.chain import (
    ANCESTORS,
    MAX_DEPTH,
    MAX_NODES,
    read_ancestors,
    read_parent,
)
from reuselib.lineage.descriptors import Parent
from reuselib.lineage.manifest import MANIFEST, Manifest, read_payload
from reuselib.lineage.policy import Policy
from reuselib.lineage.record import METRICS
from reuselib.lineage.store import Store
from reuselib.lineage.tiers import Tier
from reuselib.lineage.verify import verify

_NO_BYTES = (
    "whether the files are those of the record: no weights were read, `reuselib verify` does"
)
_NO_PROOF = "whether the parents' weights lead to these: `reuselib prove` does"
_NO_FIGURES = "whether the recorded metrics can be measured again: `reuselib audit` does"
_NO_SIGNER = "who made it: no policy names a key, so no signature was looked at"


def trace(folder: Path, *, policy: Policy | None = None) -> Trace:
    """The history of one model, from its own folder.

    Edges are `recorded` where the parent's manifest is in the folder and is the one that the child names, `missing`
    where it is not, `broken` where it is another, and `declared` where there is no manifest and a card or a
    configuration names a parent. With a policy the files are verified too, and edges are `signed` if somebody whom
    the policy trusts signed them.

    An ancestor's metrics are not in the folder; they are taken from the store of this machine if it is there.

    Raises:
        SourceError: there is no such model folder.
        IntegrityError: its own manifest is malformed, or the history is deeper or wider than is read (`LIMIT`).
    """
    if not (folder / MANIFEST).exists():
        return _undocumented(folder)
    growth = _Growth(lambda parent, _: ancestors.get(parent.manifest_sha256), _places(folder))
    ancestors = read_ancestors(folder)
    own = read_payload(folder)
    head = growth.add(own, Manifest.parse(own, path=MANIFEST), folder)
    growth.climb(max_depth=MAX_DEPTH)
    unchecked = (_NO_BYTES, _NO_PROOF, _NO_FIGURES, _NO_SIGNER)
    if policy is None:
        return growth.trace((head,), unchecked, downwards=False)
    # Whom to trust is all that matters here; a model that is old or unsigned is not broken.
    trust = replace(policy, require=("recorded",), max_age_days=None, superseded=())
    report = verify(folder, policy=trust)
    signer = report.signer
    if not report.ok:
        growth.break_off(head, str(report.problems[0]))
    elif signer:
        growth.edges = [replace(e, tier=_signed(e.tier)) for e in growth.edges]
    found = growth.trace((head,), (_NO_PROOF, _NO_FIGURES, *report.unchecked), downwards=False)
    return replace(found, signer=signer)


def trace_store(path: Path) -> Trace:
    """All models of a store, each under what it was made from.

    A child that cannot be read, or is filed under another id than its own, is shown as broken.

    Raises:
        SourceError: there is no store.
    """
    models = path / "models"
    if not models.is_dir():
        raise SourceError(
            f"{path} is no store: it has no folder 'models'",
            expected="a store, such as the folder that REUSELIB_STORE names",
            fix="leave out --children to trace a model folder",
        )
    growth = _Growth(_beside_child, lambda manifest: None)
    for folder in sorted(each for each in models.iterdir() if each.is_dir()):
        try:
            own = read_payload(folder)
            manifest = Manifest.parse(own, path=MANIFEST)
            if manifest.derivation_id != folder.name:
                raise IntegrityError("BAD_MANIFEST", "it is filed under another derivation id")
            growth.add(own, manifest, folder)
        except SourceError:
            growth.add_broken(folder.name, f"there is no readable {MANIFEST}")
        except IntegrityError as error:
            growth.add_broken(folder.name, error.what)
    growth.climb()
    growth.edges.sort(key=lambda edge: _age(growth.nodes[edge.child]))
    order = sorted(growth.nodes.values(), key=_age)
    above = {edge.child for edge in growth.edges}
    heads = tuple(node.id for node in order if node.id not in above)
    return growth.trace(heads, (_NO_BYTES, _NO_PROOF, _NO_FIGURES, _NO_SIGNER), downwards=True)


Find = Callable[[Parent, Path], "bytes | None"]
"""The bytes of a parent's manifest, for a child that was read in that folder."""
Place = Callable[[Manifest], "Path | None"]
"""The folder of an ancestor that is at hand, if it is."""


@dataclass
class _Growth:
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


def _beside_child(parent: Parent, folder: Path) -> bytes | None:
    """From the ancestors that a child carries."""
    path = folder / ANCESTORS / f"{parent.manifest_sha256}.json"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return file.read(canonical.MAX_BYTES + 1)
    except OSError:
        return None


def _places(folder: Path) -> Place:
    """Where ancestors may lie on this machine: in the store that the folder is in, or in the default one."""
    stores = [Store.default()]
    if folder.resolve().parent.name == "models":
        stores.insert(0, Store(folder.resolve().parents[1]))

    def place(manifest: Manifest) -> Path | None:
        for store in stores if manifest.derivation_id else ():
            try:
                found = store.find(str(manifest.derivation_id))
                if found and Manifest.read(found).digests == manifest.digests:
                    return found
            except ReuseError:
                continue
        return None

    return place


def _undocumented(folder: Path) -> Trace:
    """What card and configurations say of a folder without a manifest."""
    if not any(_looks_like_model(folder)):
        store = (folder / "models").is_dir()
        raise SourceError(
            f"{folder} holds no model",
            expected="a folder with a manifest, weights, a config.json or a card",
            fix="trace a store with --children" if store else "check the path",
        )
    head = Node(
        id=f"folder:{folder.resolve().name}", name=folder.resolve().name, relation="unknown"
    )
    nodes, edges = {head.id: head}, []
    for each in declared_parents(folder):
        parent = Node(id=f"declared:{each.name}", name=each.name, relation="unknown")
        nodes[parent.id] = parent
        why = f"{each.source} says so" + (f" ({each.relation})" if each.relation else "")
        edges.append(Edge(child=head.id, parent=parent.id, role="base", tier="declared", why=why))
    unchecked = (
        "everything: there is no manifest, so nothing is bound to these files",
        "parents that neither card nor configuration names: `reuselib kin` compares weights",
    )
    return Trace(tuple(nodes.values()), tuple(edges), (head.id,), False, unchecked)


def _looks_like_model(folder: Path) -> Iterator[bool]:
    for name in ("config.json", "adapter_config.json", "README.md"):
        yield (folder / name).is_file()
    yield any(folder.glob("*.safetensors"))


def _signed(tier: Tier) -> Tier:
    return "signed" if tier == "recorded" else tier


def _age(node: Node) -> tuple[str, str, str]:
    return node.started, node.name, node.id
