"""Why a model is not accepted: each part of an audit, held against what a verifier demands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reuselib.evidence.audited import Audit, Edge, Objection

if TYPE_CHECKING:
    from reuselib.evidence.card_check import CardCheck
    from reuselib.evidence.claims import CheckedClaim
    from reuselib.evidence.completeness import Completeness
    from reuselib.evidence.licences import Licences
    from reuselib.evidence.proof import Proof
    from reuselib.lineage.policy import Policy
    from reuselib.scanning.scan import Scan


def against(
    found: Audit, policy: Policy | None, broken: Sequence[Objection]
) -> Iterator[Objection]:
    """Every reason, in the order of the audit; `broken` are those for which nothing could be proven at all."""
    yield from (Objection("record", str(each)) for each in found.report.problems)
    yield from broken
    yield from against_history(found.proof, found.edges)
    yield from against_scan(found.scan, policy)
    yield from against_claims(found.claims, found.card, policy)
    yield from against_policy(found.licences, found.completeness, policy)


def against_history(proof: Proof | None, edges: Sequence[Edge]) -> Iterator[Objection]:
    """Claims of a step that do not hold, and tiers that an edge does not reach."""
    for step in proof.steps if proof else ():
        for finding in step.findings:
            if finding.holds is False:
                told = ", ".join(each for each in (finding.detail, finding.tensor) if each)
                yield Objection("history", f"{step.name}: {finding.claim}: does not hold ({told})")
    for edge in edges:
        if edge.lacking:
            has = ", ".join(edge.tiers) or "nothing"
            why = f"; {edge.why}" if edge.why else ""
            yield Objection(
                "policy",
                f"the step to {edge.name} is not {', '.join(edge.lacking)} (it is {has}{why})",
            )


def against_scan(seen: Scan, policy: Policy | None) -> Iterator[Objection]:
    """What may run code or read elsewhere, but for what the policy allows."""
    allowed = policy.allow if policy else ()
    for hazard in seen.of("danger"):
        if hazard.code not in allowed:
            yield Objection("scan", str(hazard))


def against_claims(
    claims: Sequence[CheckedClaim], card: CardCheck, policy: Policy | None
) -> Iterator[Objection]:
    """Numbers that are off or say nothing; if the policy says so, also silence, and those that were not measured."""
    must_hold = policy is not None and policy.claims == "hold"
    if must_hold and not any(each.is_metric for each in claims):
        yield Objection("claims", "nothing is stated of how good it is, so nothing holds")
    for claim in claims:
        if claim.holds is False or claim.is_void or (must_hold and claim.holds is None):
            stated = "?" if claim.value is None else f"{claim.value:.6g}"
            yield Objection("claims", f"{claim.metric} {stated} ({claim.source}): {claim.verdict}")
    for difference in card.differences:
        if difference.is_figure:
            yield Objection("card", str(difference))


def against_policy(
    licences: Licences | None, completeness: Completeness, policy: Policy | None
) -> Iterator[Objection]:
    """What else the policy demands."""
    if policy is None:
        return
    if policy.licences and licences is None:
        yield Objection("licences", "without a record nothing is known of its licences")
    yield from (Objection("licences", each) for each in (licences.refused if licences else ()))
    if policy.min_completeness is not None and completeness.score < policy.min_completeness:
        what = f"{completeness.score:.0%} of what is worth knowing is there, {policy.min_completeness:.0%} is demanded"
        yield Objection("completeness", what)
