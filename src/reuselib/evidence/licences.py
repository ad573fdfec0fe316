"""Licences along the edges of a lineage: what each parent's terms mean for its child. Advice, not legal advice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.evidence.terms import Judgement, Relation, judge, keep_each_other
from reuselib.lineage.licence import Licence, carded_licence

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.chain import Chain
    from reuselib.lineage.descriptors import Descriptor, Parent
    from reuselib.lineage.manifest import Manifest
    from reuselib.lineage.policy import Policy

NOTICE = "advice from a small table, not legal advice: read the licences themselves"


@dataclass(frozen=True, kw_only=True)
class LicenceEdge:
    """A child and one thing that it was made from."""

    child: str
    parent: str
    relation: Relation
    child_licence: str
    """Empty if none is stated."""
    parent_licence: str
    """Likewise. Of a parent that states none, the terms that it was itself made under."""
    conflict: str = ""
    """Why both cannot be kept, if so."""
    doubt: str = ""
    """What has to be found out before that can be said."""
    obligations: tuple[str, ...] = ()
    """What has to be done when the child is passed on."""


@dataclass(frozen=True)
class Licences:
    """What licences mean along a whole history."""

    edges: tuple[LicenceEdge, ...]
    """The model's own first, then those of its ancestors, the nearest first."""
    refused: tuple[str, ...]
    """What the policy does not allow."""

    @property
    def conflicts(self) -> tuple[LicenceEdge, ...]:
        """Edges whose terms cannot both be kept."""
        return tuple(edge for edge in self.edges if edge.conflict)

    @property
    def obligations(self) -> tuple[str, ...]:
        """Of all edges, each once."""
        return tuple(dict.fromkeys(each for edge in self.edges for each in edge.obligations))

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "notice": NOTICE,
            "edges": [{**asdict(e), "obligations": [*e.obligations]} for e in self.edges],
            "refused": [*self.refused],
        }


def read_licences(
    folder: Path, manifest: Manifest, chain: Chain, policy: Policy | None
) -> Licences:
    """Look at the terms of a model and of all that it was made from.

    Args:
        folder: the model's; what its card states counts for the model itself.
        manifest: the model's.
        chain: of its ancestors.
        policy: which licences it allows.
    """
    carded = carded_licence(folder)
    stated = {sha: Licence.parse(each.annotations) for sha, each in chain.manifests.items()}
    history = _History(manifest, chain, stated, carded or Licence.parse(manifest.annotations))
    edges = tuple(history.edges())
    return Licences(edges, tuple(_refused(history, policy)) if policy else ())


@dataclass(frozen=True)
class _History:
    manifest: Manifest
    chain: Chain
    stated: dict[str, Licence | None]
    own: Licence | None

    def edges(self) -> Iterator[LicenceEdge]:
        nodes = [(self.manifest, _named(self.own))]
        nodes += [(each, self.of(sha)) for sha, each in self.chain.manifests.items()]
        for child, licence in nodes:
            yield from self._edges_of(child, licence)

    def of(self, sha: str) -> str:
        """What an ancestor states, in its own record or in that of a child."""
        if own := self.stated.get(sha):
            return own.name
        children = [self.manifest, *self.chain.manifests.values()]
        named = (parent for each in children for parent in each.parents)
        told = (Licence.parse(p.annotations) for p in named if p.manifest_sha256 == sha)
        return next((each.name for each in told if each), "")

    def effective(self, parent: Parent) -> str:
        """A parent's terms: what is stated of it, else all that it was made under."""
        if told := Licence.parse(parent.annotations):
            return told.name
        # iterative, because a stranger may have written a long history
        found: dict[str, None] = {}
        left, seen = [parent.manifest_sha256], set[str]()
        while left:
            sha = left.pop()
            if sha in seen:
                continue
            seen.add(sha)
            name = self.of(sha)
            manifest = self.chain.manifests.get(sha)
            if name:
                found[name] = None
            elif manifest is None or not manifest.parents:
                return ""
            else:
                left += [
                    each.manifest_sha256 for each in manifest.parents if each.role != "teacher"
                ]
        return " AND ".join(sorted(found))

    def _name(self, parent: Parent) -> str:
        known = self.chain.manifests.get(parent.manifest_sha256)
        return f"{known.name} ({parent.role})" if known else parent.name

    def _edges_of(self, child: Manifest, licence: str) -> Iterator[LicenceEdge]:
        known: list[tuple[str, Relation, str]] = [
            (self._name(parent), _relation(child, parent), self.effective(parent))
            for parent in child.parents
        ]
        trained: Relation = "trained on"
        known += [
            (each.name, trained, _named(Licence.parse(each.annotations)))
            for each in child.definition.dependencies
            if each.role in ("dataset", "calibration")
        ]
        for name, relation, above in known:
            if relation == "trained on" and not above:
                continue  # said once, under what was not checked
            judged = _judge(above, relation, licence)
            yield LicenceEdge(
                child=child.name,
                parent=name,
                relation=relation,
                child_licence=licence,
                parent_licence=above,
                conflict=judged.conflict,
                doubt=judged.doubt,
                obligations=judged.obligations,
            )
        yield from self._between(child, licence, known)

    def _between(
        self, child: Manifest, licence: str, known: Sequence[tuple[str, Relation, str]]
    ) -> Iterator[LicenceEdge]:
        """Weights of several parents in one child: their terms must go together."""
        mixed = [
            (name, above) for name, relation, above in known if relation == "combines" and above
        ]
        for (one, above), (other, beside) in combinations(mixed, 2):
            if not keep_each_other(above, beside):
                what = f"{one} is under {above} and {other} under {beside}, and both must be kept"
                yield LicenceEdge(
                    child=child.name,
                    parent=f"{one} and {other}",
                    relation="combines",
                    child_licence=licence,
                    parent_licence=f"{above} AND {beside}",
                    conflict=what,
                )


def unstated_rows(manifest: Manifest, chain: Chain) -> tuple[Descriptor, ...]:
    """Rows in the history whose licence nobody recorded."""
    return tuple(
        item
        for each in (manifest, *chain.manifests.values())
        for item in each.definition.dependencies
        if item.role in ("dataset", "calibration") and not Licence.parse(item.annotations)
    )


def _relation(child: Manifest, parent: Parent) -> Relation:
    if parent.role == "teacher":
        return "learns from"
    if child.relation == "adapter":
        return "adapts"
    return "combines" if len(child.parents) > 1 else "derives"


def _judge(above: str, relation: Relation, below: str) -> Judgement:
    """All parts of a conjunction apply, so each is judged."""
    parts = (
        re.split(r"\s+AND\s+", above, flags=re.IGNORECASE)
        if " or " not in above.lower()
        else [above]
    )
    judged = [judge(part, relation, below) for part in parts]
    return Judgement(
        "; ".join(dict.fromkeys(each.conflict for each in judged if each.conflict)),
        tuple(dict.fromkeys(told for each in judged for told in each.obligations)),
        "; ".join(dict.fromkeys(each.doubt for each in judged if each.doubt)),
    )


def _refused(history: _History, policy: Policy) -> Iterator[str]:
    if not policy.licences:
        return
    allowed = {each.lower() for each in policy.licences}
    nodes = [(history.manifest.name, _named(history.own))]
    nodes += [(each.name, history.of(sha)) for sha, each in history.chain.manifests.items()]
    nodes += [
        (item.name, _named(Licence.parse(item.annotations)))
        for each in (history.manifest, *history.chain.manifests.values())
        for item in each.definition.dependencies
        if item.role in ("dataset", "calibration") and Licence.parse(item.annotations)
    ]
    for name, licence in dict.fromkeys(nodes):
        if not licence:
            yield f"{name} states no licence, and the policy allows {', '.join(policy.licences)} only"
        elif not _is_allowed(licence, allowed):
            yield f"{name} is under {licence}, and the policy allows {', '.join(policy.licences)} only"


def _is_allowed(licence: str, allowed: set[str]) -> bool:
    text = licence.lower()
    return text in allowed or any(
        all(part.strip() in allowed for part in option.split(" and "))
        for option in text.split(" or ")
    )


def _named(licence: Licence | None) -> str:
    return licence.name if licence else ""
