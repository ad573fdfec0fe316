"""What a rehearsal found, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from reuselib.adapter import Json
from reuselib.cli.figures import count, duration, size

if TYPE_CHECKING:
    from reuselib.derivation.plan import Plan
    from reuselib.derivation.rehearsal import Rehearsal


def to_json(plan: Plan, rehearsals: Sequence[Rehearsal]) -> dict[str, Json]:
    """As `reuselib check --json` prints it."""
    return {
        "base": plan.base.uri,
        "digest": plan.base.manifest.digests.dir_hash,
        "finished": len(plan.finished()),
        "steps": [asdict(each) for each in rehearsals],
    }


def show(plan: Plan, rehearsals: Sequence[Rehearsal]) -> None:
    """Print what was resolved, and what each step would take on this machine."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"base:  {plan.base.uri}", markup=False, soft_wrap=True)
    if plan.splits is not None:
        rows = f"{len(plan.splits.train)} rows to learn from, {len(plan.splits.test)} to measure on"
        console.print(f"data:  {rows}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step")
    for heading in ("trainable", "parameters", "optimizer steps", "time", "memory"):
        table.add_column(heading, justify="right")
    for each in rehearsals:
        table.add_row(
            each.kind,
            count(each.num_trainable),
            count(each.num_parameters),
            str(each.num_steps) if each.num_steps else "-",
            f"about {duration(each.seconds)}",
            size(each.peak_bytes) if each.peak_bytes else "-",
        )
    console.print(table)
    rebuilt = next((each.kind for each in rehearsals if not each.stock), None)
    if rebuilt:
        console.print(
            f"from '{rebuilt}' on, the model opens with reuselib only: no configuration of transformers says how its "
            "network is built",
            soft_wrap=True,
        )
    done = len(plan.finished())
    if done:
        console.print(f"in the store already: the first {done} of {len(plan.steps)} steps")
    console.print(
        "times are for the adapters alone, on this machine; measuring and saving come on top",
        soft_wrap=True,
    )
    console.print("nothing was kept; this recipe can run")
