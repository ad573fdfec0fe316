"""Where a model came from, from what lies in its own folder; and what a store holds, under what it was made from.

Manifests are read, hashed and held against one another. No weights are read and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reuselib.errors import IntegrityError, ReuseError, SourceError
from reuselib.forensics.declared import declared_parents
from reuselib.forensics.graph import Edge, Node, Trace
from reuselib.forensics.growth import Growth, Place
from reuselib.lineage import canonical
from reuselib.lineage.chain import (
    ANCESTORS,
    MAX_DEPTH,
    read_ancestors,
)
from reuselib.lineage.descriptors import Parent
from reuselib.lineage.manifest import MANIFEST, Manifest, read_payload
from reuselib.lineage.policy import Policy, policy_for
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
    trusted = policy_for(folder, policy)
    if not (folder / MANIFEST).exists():
        return _undocumented(folder)
    growth = Growth(lambda parent, _: ancestors.get(parent.manifest_sha256), _places(folder))
    ancestors = read_ancestors(folder)
    own = read_payload(folder)
    head = growth.add(own, Manifest.parse(own, path=MANIFEST), folder)
    growth.climb(max_depth=MAX_DEPTH)
    unchecked = (_NO_BYTES, _NO_PROOF, _NO_FIGURES, _NO_SIGNER)
    if trusted is None:
        return growth.trace((head,), unchecked, downwards=False)
    # Whom to trust is all that matters here; a model that is old or unsigned is not broken.
    trust = replace(trusted, require=("recorded",), max_age_days=None, superseded=())
    report = verify(folder, policy=trust)
    signer = report.signer
    wrong = [each for each in report.problems if each.code not in ("UNSIGNED", "UNTRUSTED_SIGNER")]
    if wrong:
        growth.break_off(head, str(wrong[0]))
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
    growth = Growth(_beside_child, lambda manifest: None)
    folders = Store(path).records() | {
        each.name: each for each in models.iterdir() if each.is_dir()
    }
    for name, folder in sorted(folders.items()):
        try:
            own = read_payload(folder)
            manifest = Manifest.parse(own, path=MANIFEST)
            if manifest.derivation_id != name:
                raise IntegrityError("BAD_MANIFEST", "it is filed under another derivation id")
            growth.add(own, manifest, folder)
        except SourceError:
            growth.add_broken(name, f"there is no readable {MANIFEST}")
        except IntegrityError as error:
            growth.add_broken(name, error.what)
    growth.climb()
    growth.edges.sort(key=lambda edge: _age(growth.nodes[edge.child]))
    order = sorted(growth.nodes.values(), key=_age)
    above = {edge.child for edge in growth.edges}
    heads = tuple(node.id for node in order if node.id not in above)
    return growth.trace(heads, (_NO_BYTES, _NO_PROOF, _NO_FIGURES, _NO_SIGNER), downwards=True)


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
