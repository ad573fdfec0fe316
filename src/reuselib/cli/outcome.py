"""What a run ended in, as tables and as JSON."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Json
from reuselib.cli.figures import count, duration, factor, milliseconds, number, size, within

if TYPE_CHECKING:
    from rich.table import Table

    from reuselib.derivation.execution import Child, Execution
    from reuselib.model.figures import Figures

SHARES = frozenset({"accuracy", "f1", "exact_match"})
"""Metrics from 0 to 1, whose differences are told in points of a hundred."""
SLOWER = 1.1
"""A time that was taken in turns is told to have grown from this ratio on."""
MUCH_SLOWER = 1.25
"""One that was not, from this one on: a machine may have had more to do in the meantime."""


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
        "gates": [dict(each) for each in execution.verdicts],
    }


def show(execution: Execution) -> None:
    """Print what each step made and changed, what reuse was worth, and where to go from here."""
    from rich.console import Console

    console = Console(highlight=False)
    measured = [(child.adapter.kind, _figures(child)) for child in execution.children]
    console.print(_models(measured))
    console.print()
    console.print(_steps(measured))
    remarks = (
        *_reuse(execution),
        *_reference(measured[-1][1]),
        *_slower(measured),
        *_gates(execution),
    )
    for line in (*remarks, *_next(execution)):
        console.print(line, markup=False, soft_wrap=True)


def place(execution: Execution) -> object:
    """Where the last child is: the output folder if one was asked for, else the store."""
    return execution.output or execution.children[-1].folder


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    return table


def _models(measured: list[tuple[str, Figures]]) -> Table:
    """One row a model, the first for what the run began with."""
    first = measured[0][1]
    table = _table("model", first.metric or "metric", "params", "bytes", "FLOPs", "ms", "speed-up")
    cost = first.cost_before
    told = within(first.before.get(first.metric), _interval(first, "before"))
    if cost or first.before:
        table.add_row("(before)", told, *_sizes(cost), "")
    for kind, figures in measured:
        origin = figures.origin.get("speedup")
        speedup = origin.get("speedup") if isinstance(origin, dict) else None
        told = within(figures.after.get(figures.metric), _interval(figures, "after"))
        table.add_row(kind, told, *_sizes(figures.cost), factor(speedup))
    return table


def _sizes(cost: object) -> tuple[str, ...]:
    values = cost if isinstance(cost, dict) else {}
    return (
        count(values.get("num_parameters")),
        size(values.get("num_bytes")),
        count(values.get("flops")),
        milliseconds(values.get("latency_p50")),
    )


def _steps(measured: list[tuple[str, Figures]]) -> Table:
    """One row a step: what it took, and how far answers drifted from the model before it."""
    table = _table("step", "trained", "time", "memory", "agree", "KL", "worst class")
    for kind, figures in measured:
        cost, drift = figures.cost, figures.drift
        agreement, kl = drift.get("agreement"), drift.get("kl")
        table.add_row(
            kind,
            count(_number(cost.get("num_trainable"))),
            duration(_number(cost.get("seconds"))),
            size(_number(cost.get("peak_bytes"))),
            number(_number(agreement)),
            f"{kl:.2g}" if isinstance(kl, float | int) else "-",
            worst_class(figures),
        )
    return table


def worst_class(figures: Figures) -> str:
    """The class that lost most against the model before: `bad 0.91 -> 0.85`."""
    from reuselib.measure.drift import MIN_ROWS

    classes = figures.drift.get("classes")
    rows = [each for each in classes or () if isinstance(each, dict) and each["rows"] >= MIN_ROWS]
    if not rows:
        return "-"
    worst = min(rows, key=lambda row: row["after"] - row["before"])
    return f"{worst['name']} {worst['before']:.2f} -> {worst['after']:.2f}"


def _interval(figures: Figures, side: str) -> Json:
    found = figures.intervals.get(side)
    return found.get(figures.metric) if isinstance(found, dict) else None


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _reuse(execution: Execution) -> Iterator[str]:
    reused = [child.adapter.kind for child in execution.children if child.reused]
    if len(reused) == len(execution.children):
        yield "nothing was computed: the store holds these children already"
    elif reused:
        yield f"from the store: {', '.join(reused)}"


def _reference(figures: Figures) -> Iterator[str]:
    """What a simple method reaches on the same rows."""
    theirs, ours = figures.reference.get(figures.metric), figures.after.get(figures.metric)
    if isinstance(theirs, float) and ours is not None:
        gain = ours - theirs
        told = f"{100 * gain:+.1f} points" if figures.metric in SHARES else f"{gain:+.4g}"
        yield (
            f"{figures.reference.get('name')} {number(theirs)}, this model {number(ours)}: {told} of {figures.metric}"
        )


def _slower(measured: list[tuple[str, Figures]]) -> Iterator[str]:
    """Never slower silently; and times that mean nothing are told, too."""
    earlier: Figures | None = None
    unstable = False
    for kind, figures in measured:
        for batch, rows in (("", "one row"), ("_batch32", "32 rows")):
            ratio, time = _grown(figures, earlier, batch), f"latency_p50{batch}"
            before, after = figures.cost_before.get(time), figures.cost.get(time)
            unstable |= isinstance(before, str) or isinstance(after, str)
            if ratio is not None and ratio > 1:
                yield f"{kind}: slower than the model before it, {ratio:.2f} times the time for {rows}"
        earlier = figures
    if unstable:
        yield "unstable: the machine was too busy to tell a time; `reuselib compare` measures anew"


def _grown(figures: Figures, earlier: Figures | None, batch: str) -> float | None:
    """By what ratio a time has grown from the model before, if by more than a machine varies."""
    mine = _against_origin(figures, batch)
    if mine is not None:
        # taken in turns with the origin, so what the machine did meanwhile does not count
        known = earlier is not None and earlier.origin.get("dir_hash") == figures.origin.get(
            "dir_hash"
        )
        before = _against_origin(earlier, batch) if known and earlier is not None else 1.0
        if before is not None:
            return before / mine if before / mine > SLOWER else None
    before, after = (
        _number(cost.get(f"latency_p50{batch}")) for cost in (figures.cost_before, figures.cost)
    )
    if before is None or after is None or after < MUCH_SLOWER * before:
        return None
    return after / before


def _against_origin(figures: Figures, batch: str) -> float | None:
    """How many times faster than a model that was compressed; None if it was not timed in turns with one."""
    return (
        _number(figures.flat().get(f"speedup{batch}")) if figures.origin.get("in_turns") else None
    )


def _gates(execution: Execution) -> Iterator[str]:
    for verdict in execution.verdicts:
        yield f"gate {'passed' if verdict['passed'] else 'failed'}: {verdict['told']}"


def _next(execution: Execution) -> list[str]:
    folder = place(execution)
    quoted = f"'{folder}'" if " " in str(folder) else folder
    return [
        f"model:   {folder}",
        f"verify:  {program()} verify {quoted}",
        f"lineage: {program()} show {quoted}",
    ]


def program() -> str:
    """How this program can be called again: by its path if that is how it was called and the name is not found."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and not shutil.which("reuselib"):
        return f"{shlex.quote(sys.executable)} -m reuselib"
    return "reuselib" if called.name != "reuselib" or shutil.which("reuselib") else str(called)


def _figures(child: Child) -> Figures:
    from reuselib.model.figures import read_figures

    return read_figures(child.folder)
