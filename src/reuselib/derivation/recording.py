"""What a finished step is recorded as: its manifest and its card, with its figures."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Json, as_json
from reuselib.derivation.link import Link
from reuselib.derivation.plan import Plan, form_of, references
from reuselib.exchange.card import card
from reuselib.exchange.dossier import Dossier
from reuselib.lineage.chain import walk
from reuselib.lineage.definition import Definition, Internal
from reuselib.lineage.descriptors import Descriptor, Parent
from reuselib.lineage.details import Details
from reuselib.lineage.environment import environment, versions
from reuselib.lineage.headers import headers
from reuselib.lineage.licence import inherited, licence_of
from reuselib.lineage.record import Draft, record
from reuselib.model.figures import Figures
from reuselib.model.source import Pinned, resolve

if TYPE_CHECKING:
    from reuselib.data import Splits
    from reuselib.derivation.step import Outcome


def write_record(link: Link, outcome: Outcome, figures: Figures, folder: Path) -> None:
    """Write `lineage/` and the card into a folder that holds the payload."""
    plan, adapter, parent = link.plan, link.adapter, link.parent
    others = [(role, resolve(ref, plan.store)) for role, ref in references(adapter)]
    if adapter.uses_origin:
        others.append(("teacher", link.origin))
    ancestors = dict(parent.history)
    for _, other in others:
        ancestors.update(other.history)
    described = adapter.describe()
    draft = Draft(
        name=f"{parent.manifest.name}-{adapter.kind}",
        definition=Definition(
            relation=adapter.relation,
            adapter=adapter.kind,
            recipe=described[adapter.kind],
            task=plan.task.describe(),
            data=_data(plan),
            seed=plan.seed,
            internal=settled(link, outcome),
            dependencies=_dependencies(parent, others, plan.splits),
        ),
        details=Details(
            versions=versions(),
            started=outcome.started,
            finished=outcome.finished,
            invocation_id=f"urn:uuid:{uuid.uuid4()}",
        ),
        trails=outcome.trails,
        annotations=_inherited([parent, *(other for _, other in others)]),
    )
    manifest = record(
        folder,
        draft,
        metrics=figures.to_json(),
        environment=environment(),
        ancestors=ancestors,
        byproducts=outcome.byproducts,
    )
    dossier = Dossier(manifest, figures, walk(manifest, ancestors).manifests)
    (folder / "README.md").write_text(card(dossier), encoding="utf-8")


def settled(link: Link, outcome: Outcome) -> Internal:
    """What the run of a step settled by itself, as its record has it."""
    child, facts = outcome.opened, dict(outcome.settled)
    device = str(facts.pop("device", "cpu"))
    return Internal(
        derivation_id=link.derivation_id,
        form=child.form,
        structure=outcome.structure,
        rebuild=child.rebuild,
        requires=child.requires,
        fresh=tuple(sorted(outcome.fresh)),
        prefix=outcome.prefix,
        renamed=outcome.renamed,
        dropped=_dropped(link.parent, outcome),
        device=device,
        world_size=int(facts.pop("num_processes", 1)),
        determinism="strict" if device == "cpu" else "none",
        facts=facts,
    )


def _dropped(parent: Pinned, outcome: Outcome) -> tuple[str, ...]:
    """Tensors of the parent that its network has no use for, such as another task's head.

    Also if that has the name of the head that was initialised in its stead.
    """
    if form_of(parent.manifest) not in ("dense", "sparse"):
        return ()
    known = headers(parent.folder)
    names = {outcome.renamed.get(name, f"{outcome.prefix}{name}") for name in known}
    return tuple(sorted(names - (outcome.names - outcome.fresh)))


def _data(plan: Plan) -> dict[str, Json] | None:
    if plan.data is not None:
        described = as_json(plan.data)
        return described if isinstance(described, dict) else None
    return {"source": plan.splits.source} if plan.splits else None


def _parent(name: str, role: str, pinned: Pinned) -> Parent:
    manifest = pinned.manifest
    licence = licence_of(manifest, pinned.folder)
    terms = licence.to_json() if licence else {}
    return Parent(name, role, pinned.uri, manifest.digests, manifest.sha256, terms)


def _inherited(parents: Sequence[Pinned]) -> dict[str, Json]:
    """The child's terms, as far as they follow from its parents'."""
    licence = inherited(licence_of(each.manifest, each.folder) for each in parents)
    return licence.to_json() if licence else {}


def _dependencies(
    parent: Pinned, others: Sequence[tuple[str, Pinned]], splits: Splits | None
) -> tuple[Descriptor, ...]:
    models = [_parent("base", "base", parent)]
    models += [
        _parent(f"{role}-{index + 1}", role, other) for index, (role, other) in enumerate(others)
    ]
    found = [entry for model in models for entry in model.descriptors()]
    if splits is not None:
        found.append(
            Descriptor(
                name="data",
                digest={"rowsHash1": splits.digest},
                role="dataset",
                uri=splits.source,
                annotations=dict(splits.facts),
            )
        )
    return tuple(found)
