"""What `prove` found, for people: each step with its claims, and always what was not checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from reuselib.evidence.proof import Proof, ProvenStep

MARKS = {True: "+", False: "!", None: "?"}
"""Holds, does not hold, cannot be checked."""
STYLES = {"proven": "bold green", "broken": "bold red"}
"""By tier; the others are plain, since nothing is shown either way."""


def show_proof(proof: Proof) -> None:
    """Print a proof."""
    from rich.console import Console

    console = Console(highlight=False)
    number = len(proof.steps)
    _line(
        console,
        f"{proof.name}: {proof.tier} ({number} step{'s' * (number != 1)}, the weakest counts)",
        STYLES.get(proof.tier, "bold"),
    )
    meanings = ("holds", "does not hold", "cannot be checked")
    legend = zip(MARKS.values(), meanings, strict=True)
    _line(console, "  " + ", ".join(f"{mark} {meaning}" for mark, meaning in legend), "dim")
    for step in proof.steps:
        _show_step(console, step)
    for dir_hash, name in proof.roots.items():
        _line(console, f"base      {name} (dirHash {dir_hash})")
    _line(console, "")
    said = {f"{step.name}: {step.why}" for step in proof.steps}
    for index, line in enumerate(line for line in proof.unchecked if line not in said):
        _line(console, f"  {'not checked:' if index == 0 else '':<13}{line}", "dim")


def _show_step(console: Console, step: ProvenStep) -> None:
    made = f" by {step.adapter} ({step.relation})" if step.adapter else ""
    more = "".join(f": {each}" for each in (step.extent, step.why) if each)
    _line(console, f"{step.tier:<9} {step.name}{made}{more}", STYLES.get(step.tier, ""))
    for finding in step.findings:
        more = "; ".join(filter(None, (finding.detail, finding.tensor)))
        text = f"  {MARKS[finding.holds]} {finding.claim}" + (f" ({more})" if more else "")
        _line(console, text, "red" if finding.holds is False else "")


def _line(console: Console, text: str, style: str = "") -> None:
    # names come from strangers: no markup, and nothing that moves the cursor
    printable = "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text
    )
    console.print(printable, style=style, markup=False, soft_wrap=True)
