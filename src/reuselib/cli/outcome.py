"""What a run ended in, as a table and as JSON."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Json
from reuselib.cli.figures import change, count, number, size

if TYPE_CHECKING:
    from reuselib.derivation.execution import Child, Execution
    from reuselib.model.figures import Figures

SHARES = frozenset({"accuracy", "f1", "exact_match"})
"""Metrics from 0 to 1, whose differences are told in points of a hundred."""


def to_json(execution: Execution) -> dict[str, Json]:
    """As `reuselib run --json` prints it."""
    return {
        "folder": str(place(execution)),
        "digest": dict(execution.children[-1].manifest.digests.to_json()),
        "steps": [
            {
                "adapter": child.adapter.kind,
                "id": child.manifest.derivation_id,
                "folder": str(child.folder),
                "reused": child.reused,
                "figures": _figures(child).to_json(),
            }
            for child in execution.children
        ],
    }


def show(execution: Execution) -> None:
    """Print the table, what reuse was worth, and where to go from here."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    first = _figures(execution.children[0])
    table.add_column("step")
    for heading in (first.metric or "metric", "trainable", "parameters", "bytes", "seconds"):
        table.add_column(heading, justify="right")
    for child in execution.children:
        table.add_row(*_row(child))
    console.print(table)
    for line in (*_remarks(execution), *_next(execution)):
        console.print(line, markup=False, soft_wrap=True)


def place(execution: Execution) -> object:
    """Where the last child is: the output folder if one was asked for, else the store."""
    return execution.output or execution.children[-1].folder


def _row(child: Child) -> tuple[str, ...]:
    figures = _figures(child)
    name = child.adapter.kind + (" (from the store)" if child.reused else "")
    measured = change(figures.before.get(figures.metric), figures.after.get(figures.metric))
    cost = figures.cost
    return (
        name,
        measured,
        count(cost.get("num_trainable")),
        count(cost.get("num_parameters")),
        size(cost.get("num_bytes")),
        number(cost.get("seconds"), digits=1),
    )


def _remarks(execution: Execution) -> list[str]:
    """That nothing was computed, and what a simple method reaches on the same rows."""
    remarks: list[str] = []
    if all(child.reused for child in execution.children):
        remarks.append("nothing was computed: the store holds these children already")
    figures = _figures(execution.children[-1])
    theirs, ours = figures.reference.get(figures.metric), figures.after.get(figures.metric)
    if isinstance(theirs, float) and ours is not None:
        gain = ours - theirs
        told = f"{100 * gain:+.1f} points" if figures.metric in SHARES else f"{gain:+.4g}"
        remarks.append(
            f"{figures.reference.get('name')} {number(theirs)}, this model {number(ours)}: {told} of {figures.metric}"
        )
    return remarks


def _next(execution: Execution) -> list[str]:
    folder = place(execution)
    quoted = f"'{folder}'" if " " in str(folder) else folder
    return [
        f"model:   {folder}",
        f"verify:  {_program()} verify {quoted}",
        f"lineage: {_program()} show {quoted}",
    ]


def _program() -> str:
    """How this program can be called again: by its path if that is how it was called and the name is not found."""
    called = Path(sys.argv[0])
    return "reuselib" if called.name != "reuselib" or shutil.which("reuselib") else str(called)


def _figures(child: Child) -> Figures:
    from reuselib.model.figures import read_figures

    return read_figures(child.folder)
