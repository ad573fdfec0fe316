"""Everything that can be found out about a model folder at once, held against what a verifier demands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, ReuseError
from reuselib.evidence.audited import Audit, Edge, Objection
from reuselib.evidence.card_check import check_card
from reuselib.evidence.claims import CheckedClaim, unmeasured
from reuselib.evidence.completeness import complete
from reuselib.evidence.licences import read_licences, unstated_rows
from reuselib.evidence.measurement import Measurement, check_claims
from reuselib.evidence.objections import against
from reuselib.evidence.prove import prove
from reuselib.evidence.rows import Given
from reuselib.evidence.whereabouts import Whereabouts
from reuselib.lineage.chain import Chain, read_ancestors, walk
from reuselib.lineage.policy import Demand, Policy, policy_for
from reuselib.lineage.verify import verify
from reuselib.model.opening import read_manifest
from reuselib.progress import Progress
from reuselib.scanning.scan import Scan, scan

if TYPE_CHECKING:
    from reuselib.evidence.proof import Proof, ProvenStep
    from reuselib.lineage.manifest import Manifest
    from reuselib.lineage.report import Report
    from reuselib.lineage.store import Store
    from reuselib.progress import Report as Tell

_DONE_HERE = (
    "whether the parents' weights lead to these",
    "whether the recorded metrics can be measured again",
    "README.md: the model card",
    "who made it: `verify` looks at signatures",
)
"""How lines begin in which `verify` and `prove` leave to others what an audit does."""
_PHASES = 5


def audit(
    folder: Path,
    *,
    policy: Policy | str | Path | None = None,
    data: Given = None,
    parents: Sequence[Path] = (),
    store: Path | Store | None = None,
    report: Tell | None = None,
) -> Audit:
    """Verify, prove, scan, measure claims again, and look at licences, card and gaps.

    Without a policy a model is accepted if nothing about it is broken, no number that is stated of it is off or says
    nothing, and nothing in it may run code. Licences are advice, and refuse a model only if a policy names those that
    it allows. Nothing of the folder is run; it is opened to be measured only if record and scan are clean.

    Args:
        folder: the model.
        policy: what is demanded besides, or the file that says so; never one that lies in `folder`.
        data: the rows that claims are about, or where they are, if not where the manifest says.
        parents: folders of parents or of any ancestors, in any order; they are recognised by their bytes.
        store: where to look for the others; default: the user's store.
        report: called with the progress.

    Raises:
        SourceError: there is no such folder, or one that is named is not there.
        RecipeError: the policy is malformed.
        MissingExtra: a signature is to be checked and `reuselib[sign]` is not installed.
    """
    work = _Work(Path(folder), policy_for(Path(folder), policy), report)
    work.tell(0, "verifying")
    found = verify(work.folder, policy=work.policy)
    work.tell(1, "scanning")
    seen = scan(work.folder)
    manifest = found.manifest
    chain, places = work.history(manifest, parents, store)
    work.tell(2, "proving")
    proof, broken = work.proof(manifest, parents, store)
    edges = work.edges(found, proof, chain, places, data)
    work.tell(3, "measuring claims")
    claims = work.claims(manifest, places, data, _refusal(found, seen))
    work.tell(4, "reading licences and card")
    parts = Audit(
        name=manifest.name if manifest else work.folder.resolve().name,
        report=found,
        proof=proof,
        edges=edges,
        scan=seen,
        claims=claims,
        licences=read_licences(work.folder, manifest, chain, work.policy) if manifest else None,
        card=check_card(work.folder),
        completeness=complete(work.folder, manifest, chain),
    )
    work.tell(_PHASES, "")
    return replace(
        parts,
        objections=tuple(against(parts, work.policy, broken)),
        unchecked=tuple(work.unchecked(parts, chain)),
    )


@dataclass(frozen=True)
class _Work:
    """One audit under way."""

    folder: Path
    policy: Policy | None
    report: Tell | None

    def tell(self, done: int, what: str) -> None:
        if self.report is not None:
            self.report(Progress("audit", done, _PHASES, what))

    def history(
        self, manifest: Manifest | None, parents: Sequence[Path], store: Path | Store | None
    ) -> tuple[Chain, Whereabouts]:
        """The ancestors, as far as they can be read, and where their weights are."""
        chain = Chain({})
        if manifest is not None:
            try:
                chain = walk(manifest, read_ancestors(self.folder))
            except ReuseError:
                chain = Chain({}, manifest.parents)  # `verify` and `prove` say why
        return chain, Whereabouts.of(parents, store, chain.manifests)

    def proof(
        self, manifest: Manifest | None, parents: Sequence[Path], store: Path | Store | None
    ) -> tuple[Proof | None, tuple[Objection, ...]]:
        if manifest is None:
            return None, ()
        try:
            return prove(self.folder, parents=parents, store=store), ()
        except IntegrityError as error:
            return None, (Objection("history", error.what),)

    def edges(
        self,
        found: Report,
        proof: Proof | None,
        chain: Chain,
        places: Whereabouts,
        data: Given,
    ) -> tuple[Edge, ...]:
        """What each step of the history reaches, and lacks."""
        wanted = self.policy.require if self.policy else ()
        own = (found.manifest,) if found.manifest else ()
        records = (*own, *chain.manifests.values())
        edges: list[Edge] = []
        for step in proof.steps if proof else ():
            tiers, why = _tiers(found, step), ""
            if tiers and "replayed" in wanted:
                known = {e.sha256 for e in records if e.digests.dir_hash == step.dir_hash}
                why = self._not_replayed(step, known, places, data)
                tiers = tiers if why else (*tiers, "replayed")
            lacking: list[Demand] = [each for each in wanted if each not in tiers]
            edges.append(Edge(step.name, step.dir_hash, step.relation, tiers, tuple(lacking), why))
        return tuple(edges)

    def _not_replayed(
        self, step: ProvenStep, known: set[str], places: Whereabouts, data: Given
    ) -> str:
        """Why doing a step again did not give the same weights; empty if it did. Takes as long as the step did.

        `known`: sha256 of the records that the history has of the step. Another record of the same weights is another
        story, whatever comes of it.
        """
        from reuselib.evidence.reproduce import reproduce

        own = read_manifest(self.folder)
        if own is not None and own.digests.dir_hash == step.dir_hash:
            folder = self.folder
        else:
            folder = places.place(step.dir_hash)
        if folder is None:
            return "the model is not at hand to be made again"
        rows = str(data) if isinstance(data, Path) else data
        try:
            record = read_manifest(folder)
            if record is None or known != {record.sha256}:
                return "what is at hand has another record than the history"
            again = reproduce(
                folder, data=rows, parents=places.folders, store=places.store, report=self.report
            )
        except ReuseError as error:
            return f"it cannot be made again: {error.what}"
        if again.tier == "replayed":
            return ""
        return f"made again: {again.verdict}" + (f", {again.why}" if again.why else "")

    def claims(
        self, manifest: Manifest | None, places: Whereabouts, data: Given, refusal: str
    ) -> tuple[CheckedClaim, ...]:
        if manifest is None:
            return ()
        return check_claims(Measurement(self.folder, manifest, places, data, refusal))

    def unchecked(self, parts: Audit, chain: Chain) -> Iterator[str]:
        """What a reader might believe was checked, each once."""
        told = [*parts.report.unchecked, *(parts.proof.unchecked if parts.proof else ())]
        told = [e for e in told if not e.startswith(_DONE_HERE) and "`reuselib audit`" not in e]
        told += [*parts.scan.unchecked, *parts.card.unchecked]
        told += [f"a claim: {each.reason}" for each in parts.claims if each.holds is None]
        if left := unmeasured(self.folder):
            told.append(f"figures of the record that are not measured again: {', '.join(left)}")
        manifest = parts.report.manifest
        if manifest is not None and not any(each.is_metric for each in parts.claims):
            told.append("how good it is: nothing is stated of it")
        if manifest is not None and (rows := unstated_rows(manifest, chain)):
            names = ", ".join(sorted({each.uri or each.name for each in rows}))
            told.append(f"licences of rows: none is recorded of {names}")
        if self.policy is None or "replayed" not in self.policy.require:
            told.append(
                "whether doing the steps again gives the same weights: `reuselib reproduce`"
            )
        return iter(dict.fromkeys(told))


def _tiers(found: Report, step: ProvenStep) -> tuple[Demand, ...]:
    """What an edge reaches; the signature is over the folder, and so over its whole history."""
    if step.tier in ("broken", "missing") or not found.ok:
        return ()
    reached: list[Demand] = ["proven"] if step.tier == "proven" else []
    if found.signer:
        reached.append("signed")
    return (*reached, "recorded")


def _refusal(found: Report, seen: Scan) -> str:
    """Why the model must not be opened."""
    if not found.ok:
        return "the folder is not what its record says, and is not opened"
    if dangers := seen.of("danger"):
        return f"opening it may run code ({dangers[0].path}: {dangers[0].code})"
    return ""
