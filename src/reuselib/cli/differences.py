"""Two models beside each other, and a guess at who came from whom, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reuselib.forensics.drawing import plain

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.forensics.changes import TensorChange
    from reuselib.forensics.diff import Difference
    from reuselib.forensics.kin import Kinship

_MAX_TENSORS = 20


def show_difference(difference: Difference) -> None:
    """Print the relation first, then files, record and tensors, those that moved furthest first."""
    from rich.console import Console

    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(text, markup=False, soft_wrap=True, style=style)

    say(f"A {plain(difference.names[0])}", "bold")
    say(f"B {plain(difference.names[1])}", "bold")
    say(f"{difference.relation.text}  [{difference.relation.tier}]", "bold")
    for problem in difference.problems:
        say(plain(problem), "red")
    if difference.recorded:
        say(f"{plain(difference.recorded)}  [recorded]")
    for line in _files(difference):
        say(line)
    for line in _fields(difference):
        say(line)
    counts = ", ".join(f"{number} {kind}" for kind, number in difference.counts.items())
    say(f"tensors: {counts or 'none'}")
    if any(difference.prefixes):
        one, other = (plain(each) or "nothing" for each in difference.prefixes)
        say(f"names matched with {one} in front in A, {other} in B")
    changed = sorted(
        (each for each in difference.tensors if each.kind != "identical"),
        key=_how_far,
        reverse=True,
    )
    for each in changed[:_MAX_TENSORS]:
        say(f"  {_line(each)}")
    if len(changed) > _MAX_TENSORS:
        say(f"  and {len(changed) - _MAX_TENSORS} more (--json lists all)")
    _show_unchecked(difference.unchecked)


def show_kinship(kinship: Kinship) -> None:
    """Print the proposed edges, each with its reason, and the models that seem alone."""
    from rich.console import Console

    console = Console(highlight=False)
    for edge in kinship.edges:
        way = "<-" if edge.directed else "--"
        ends = f"{plain(edge.parent)} {way} {plain(edge.child)}"
        text = f"{ends}  [inferred, score {edge.score:.2f}]  {plain(edge.reason)}"
        console.print(text, markup=False, soft_wrap=True)
    for name in kinship.alone:
        console.print(f"{plain(name)}: related to none of the others", markup=False, soft_wrap=True)
    _show_unchecked(kinship.unchecked)


def _show_unchecked(lines: tuple[str, ...]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for at, line in enumerate(lines):
        heading = "not checked:" if at == 0 else ""
        console.print(f"  {heading:<13}{plain(line)}", markup=False, soft_wrap=True, style="dim")


def _files(difference: Difference) -> Iterator[str]:
    same = sum(1 for each in difference.files if each.kind == "same")
    yield f"files: {same} the same" + "".join(
        f", {each.kind} {plain(each.path)}" for each in difference.files if each.kind != "same"
    )


def _fields(difference: Difference) -> Iterator[str]:
    """What both say otherwise; of a record that only one has, no more than that."""
    relation = next((each for each in difference.fields if each.name == "relation"), None)
    only = (
        "" if relation is None else "B" if relation.one is None else "A" * (relation.other is None)
    )
    if only and relation is not None:
        yield f"record: only {only} has one ({_short(relation.other or relation.one)})"
    for field in difference.fields:
        about_record = not field.name.startswith(("config.", "licence"))
        if not (only and about_record):
            yield f"{plain(field.name)}: {_short(field.one)} | {_short(field.other)}"


def _line(change: TensorChange) -> str:
    name = plain(change.name) + (f" | {plain(change.other)}" if change.other else "")
    parts = [f"{name}: {change.kind}"]
    if change.kind in ("added", "removed"):
        at = 0 if change.kind == "removed" else 1
        parts.append(f"{change.dtypes[at]} {list(change.shapes[at])}")
    elif change.dtypes[0] != change.dtypes[1]:
        parts.append(f"{change.dtypes[0]} -> {change.dtypes[1]}")
    if change.kind == "reshaped":
        parts.append(f"{list(change.shapes[0])} -> {list(change.shapes[1])}")
    if change.cut is not None:
        parts.append(f"{change.cut.found} of {change.cut.of} slices found in the larger")
    if (gap := change.delta) is not None:
        parts.append(
            f"L2 {gap.l2:.3g} ({gap.relative_l2:.2g} of its norm), max {gap.max_abs:.3g}, cosine {gap.cosine:.4f}"
        )
        if gap.lost or gap.gained:
            parts.append(f"zeros {gap.zeros[0] / gap.num:.1%} -> {gap.zeros[1] / gap.num:.1%}")
    if change.rank is not None:
        value, note = change.rank.value, change.rank.note
        parts.append(f"rank {value}{f' ({note})' if note else ''}" if value else f"rank: {note}")
    if change.steps is not None:
        parts.append(f"{change.steps:.2f} steps")
    if change.note:
        parts.append(plain(change.note))
    return ", ".join(parts)


def _how_far(change: TensorChange) -> tuple[bool, float, str]:
    gap = change.delta
    return (change.kind != "cast", gap.relative_l2 if gap else 2.0, change.name)


def _short(value: Json) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return plain(text if len(text) < 60 else f"{text[:57]}...")
