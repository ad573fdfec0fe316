"""What `audit` found, for people: objections first, then part by part, what was not checked, the verdict last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reuselib.cli.verdict import printable

if TYPE_CHECKING:
    from reuselib.evidence.audited import Audit
    from reuselib.evidence.claims import CheckedClaim
    from reuselib.evidence.licences import LicenceEdge

_STYLES = {"danger": "red", "caution": "yellow", "note": "dim"}


def show_audit(found: Audit) -> None:
    """Print an audit."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(printable(found.name), style="bold", markup=False, soft_wrap=True)
    for heading, lines in _parts(found):
        for index, (line, style) in enumerate(lines):
            label = f"{heading}:" if index == 0 else ""
            console.print(
                f"  {label:<14}{printable(line)}", markup=False, soft_wrap=True, style=style
            )
    count = len(found.objections)
    verdict = "accepted" if found.ok else f"NOT accepted, {count} objection{'s' * (count > 1)}"
    console.print(
        f"{printable(found.name)}: {verdict}",
        style="bold green" if found.ok else "bold red",
        markup=False,
        soft_wrap=True,
    )


def _parts(found: Audit) -> Iterator[tuple[str, Iterable[tuple[str, str]]]]:
    """Heading, and lines with their style."""
    yield "objections", ((str(each), "red") for each in found.objections)
    yield "history", _history(found)
    yield "scan", _scan(found)
    yield "claims", _claims(found.claims)
    yield "licences", _licences(found)
    yield "card", _card(found)
    yield "completeness", _completeness(found)
    yield "not checked", ((each, "dim") for each in found.unchecked)


def _history(found: Audit) -> Iterator[tuple[str, str]]:
    for edge in found.edges:
        tiers = ", ".join(edge.tiers) or "broken or missing"
        lacking = f"; lacks {', '.join(edge.lacking)}" if edge.lacking else ""
        style = "" if edge.tiers and not edge.lacking else "red"
        yield f"{edge.name} ({edge.relation or 'unknown'}): {tiers}{lacking}", style
    if not found.edges:
        yield "nothing is known of how it was made", "yellow"


def _scan(found: Audit) -> Iterator[tuple[str, str]]:
    for hazard in found.scan.hazards:
        yield f"{hazard.severity:<8} {hazard}", _STYLES[hazard.severity]
    counts = ", ".join(f"{count} {kind}" for kind, count in found.scan.formats.items())
    yield f"files by format: {counts or 'none'}", ""


def _claims(claims: Iterable[CheckedClaim]) -> Iterator[tuple[str, str]]:
    """Each that is off by itself; of the others, the figures that only go with a metric together."""
    others: dict[tuple[str, str], list[str]] = {}
    for each in claims:
        if each.is_metric or each.holds is False:
            yield _claim(each), _of(each.holds)
        else:
            key = (f"says the {each.source}: {each.verdict}", _of(each.holds))
            others.setdefault(key, []).append(each.metric)
    for (told, style), names in others.items():
        yield f"{', '.join(names)}, {told}", style


def _claim(claim: CheckedClaim) -> str:
    stated = "?" if claim.value is None else f"{claim.value:.6g}"
    span = claim.interval
    note = f" (95 % interval {span[0]:.4g} to {span[1]:.4g})" if span else ""
    if claim.holds and claim.measured is not None and claim.tolerance is not None:
        note = f", {claim.measured:.6g} was measured and {claim.tolerance:.2g} allowed{note}"
    return (
        f"{claim.metric} {stated} on {claim.split}, says the {claim.source}: {claim.verdict}{note}"
    )


def _of(holds: bool | None) -> str:
    return "yellow" if holds is None else "" if holds else "red"


def _licences(found: Audit) -> Iterator[tuple[str, str]]:
    from reuselib.evidence.licences import NOTICE

    if found.licences is None:
        return
    for edge in found.licences.edges:
        terms = f"{edge.parent_licence or 'unknown'} -> {edge.child_licence or 'unknown'}"
        told, style = _advice(edge)
        yield f"{edge.child} {edge.relation} {edge.parent} ({terms}): {told}", style
    for each in found.licences.obligations:
        yield f"to do: {each}", ""
    yield NOTICE, "dim"


def _advice(edge: LicenceEdge) -> tuple[str, str]:
    if edge.conflict:
        return f"conflict: {edge.conflict}", "red"
    return (edge.doubt, "yellow") if edge.doubt else ("no conflict", "")


def _card(found: Audit) -> Iterator[tuple[str, str]]:
    for difference in found.card.differences:
        yield str(difference), "yellow"
    if found.card.silent:
        yield f"does not state what is recorded: {', '.join(found.card.silent)}", ""
    if not found.card.differences and not found.card.unchecked:
        yield "says nothing else than the record", ""


def _completeness(found: Audit) -> Iterator[tuple[str, str]]:
    groups = ", ".join(f"{name} {share:.0%}" for name, share in found.completeness.by_group.items())
    yield f"{found.completeness.score:.0%} ({groups})", ""
    for gap in found.completeness.gaps:
        yield f"unknown: {gap.name} ({gap.fix})", "dim"
