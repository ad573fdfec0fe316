"""What a recipe was estimated and found to cost, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from reuselib.adapter import Json
from reuselib.cli.figures import count, duration, size

if TYPE_CHECKING:
    from rich.console import Console

    from reuselib.derivation.needs import Budget
    from reuselib.derivation.plan import Plan
    from reuselib.derivation.rehearsal import Rehearsal

WIDTH = 100
"""Columns of the screen that the table of estimates may take."""


def to_json(plan: Plan, budget: Budget, rehearsals: Sequence[Rehearsal]) -> dict[str, Json]:
    """As `reuselib check --json` prints it."""
    known: dict[str, Json] = {}
    if plan.is_pinned:
        known = {
            "digest": plan.base.manifest.digests.dir_hash,
            "finished": len(plan.finished()),
            "steps": [asdict(each) for each in rehearsals],
        }
    return {"base": plan.base.uri, **known, "budget": budget.to_json()}


def show(plan: Plan, budget: Budget, rehearsals: Sequence[Rehearsal]) -> None:
    """Print what was resolved, what each step would take on this machine, and whether that is there."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"base:  {plan.base.uri}", markup=False, soft_wrap=True)
    if plan.splits is not None:
        rows = f"{len(plan.splits.train)} rows to learn from, {len(plan.splits.test)} to measure on"
        console.print(f"data:  {rows}", markup=False)
    _show_budget(console, budget)
    if rehearsals:
        _show_rehearsals(console, rehearsals)
    done = len(plan.finished()) if plan.is_pinned else 0
    if done:
        console.print(f"in the store already: the first {done} of {len(plan.steps)} steps")
    if rehearsals:
        console.print("nothing was kept; this recipe can run")
    elif not budget.objections:
        console.print(
            "only configuration and headers were read; without --without-weights each step is tried",
            soft_wrap=True,
        )


def _show_budget(console: Console, budget: Budget) -> None:
    """Estimated from configuration and headers."""
    from rich.table import Table

    if not budget.steps:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step")
    headings = ("memory", "while", "weights", "gradients", "moments", "rest", "disk")
    sharded = any(each.sharded_bytes is not None for each in budget.steps)
    for heading in (*headings, *(["FSDP2"] if sharded else [])):
        table.add_column(heading, justify="right")
    for each in budget.steps:
        parts = [size(each.parts.get(name)) for name in (*headings[2:5], "activations")]
        row = (each.kind, size(each.peak_bytes), each.phase, *parts, size(each.child_bytes))
        table.add_row(*row, *([size(each.sharded_bytes)] if sharded else []))
    # a heading that is cut short says nothing, and a narrow terminal wraps
    console.width = max(console.width, WIDTH)
    console.print(table)
    processes = f"{budget.num_processes} processes" if budget.num_processes > 1 else "one process"
    lines = [
        f"memory: {size(budget.needed_bytes)} for {processes}, of {size(budget.free_bytes)}",
        f"disk:   {size(budget.disk_bytes)} in the store, {size(budget.output_bytes)} for a copy, of "
        f"{size(budget.free_disk_bytes)}",
        *(each.unknown for each in budget.steps if each.unknown),
        *(budget.objections or ["fits"]),
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _show_rehearsals(console: Console, rehearsals: Sequence[Rehearsal]) -> None:
    """Measured with a few steps of each training."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step")
    for heading in ("trainable", "parameters", "optimizer steps", "time", "memory so far"):
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
    console.print(
        "times are for the adapters alone, on this machine; measuring and saving come on top",
        soft_wrap=True,
    )
