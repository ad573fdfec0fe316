"""Models beside each other, as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Json
from reuselib.cli.figures import NONE, count, factor, milliseconds, number, size

if TYPE_CHECKING:
    from reuselib.derivation.comparing import Beside

FORMATS: dict[str, tuple[str, Callable[..., str]]] = {
    "ece": ("calibration error", number),
    "worst_class": ("worst class", number),
    "worst_slice": ("worst slice", number),
    "num_parameters": ("parameters", count),
    "num_bytes": ("bytes", size),
    "flops": ("FLOPs, one row", count),
    "latency_p50": ("ms, one row", milliseconds),
    "latency_p95": ("  95 %", milliseconds),
    "latency_p50_batch32": ("ms, 32 rows", milliseconds),
    "latency_p95_batch32": ("  95 %", milliseconds),
    "speedup": ("speed-up, one row", factor),
    "speedup_batch32": ("speed-up, 32 rows", factor),
    "agreement": ("agreement", number),
    "kl": ("KL", lambda value: f"{value:.2g}" if value is not None else NONE),
    "loss_change": ("change of a row's loss", number),
    "worst_class_change": ("worst class change", number),
    "worst_slice_change": ("worst slice change", number),
}
"""How figures are called and written, in the order of the rows; the task's metrics come first."""


def show(report: Beside) -> None:
    """Print one column a model; the second and later ones against the first."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for model in report.models:
        table.add_column(Path(model.source).name or model.source, justify="right")
    every = {name for model in report.models for name in model.figures}
    metrics = [name for name in report.models[0].figures if name not in FORMATS]
    metrics.sort(key=lambda name: name != report.metric)
    for name in metrics:
        table.add_row(name, *(number(_number(model.figures.get(name))) for model in report.models))
        table.add_row("  95 %", *(_interval(model.intervals.get(name)) for model in report.models))
        if len(report.models) > 1:
            table.add_row(
                "  change", *(_interval(model.changes.get(name), "+") for model in report.models)
            )
    for name, (title, write) in FORMATS.items():
        if name in every:
            cells = (write(model.figures.get(name)) for model in report.models)
            table.add_row(title, *cells)
    console.print(table)
    for line in _remarks(report):
        console.print(line, markup=False, soft_wrap=True, style="dim")


def _interval(value: Json, sign: str = "") -> str:
    return f"[{value[0]:{sign}.3f}, {value[1]:{sign}.3f}]" if isinstance(value, list) else ""


def _number(value: Json) -> float | None:
    return value if isinstance(value, int | float) else None


def _remarks(report: Beside) -> list[str]:
    first = report.models[0]
    lines = [
        f"on {report.test.get('rows')} test rows; change (95 %), speed-up and drift against {first.source}; "
        f"{report.protocol.get('threads')} threads, times in turns"
    ]
    lines += [
        f"{model.source} has no head for this task: its answers are chance"
        for model in report.models
        if model.chance
    ]
    if any("unstable" in model.figures.values() for model in report.models):
        lines.append("unstable: the machine was too busy to tell; try again when it is quiet")
    return lines
