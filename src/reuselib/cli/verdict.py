"""What `verify` found, for people: problems first, and always what was not checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.cli.figures import size

if TYPE_CHECKING:
    from reuselib.lineage.report import Report


def show_report(report: Report, folder: Path) -> None:
    """Print a report."""
    from rich.console import Console

    console = Console(highlight=False)
    style = "bold green" if report.ok else "bold red"
    line = printable(f"{folder}: {_verdict(report)}")
    console.print(line, style=style, markup=False, soft_wrap=True)
    for mark, found in (("", report.problems), ("warning: ", report.warnings)):
        for problem in found:
            place = problem.path + (f", tensor {problem.tensor}" if problem.tensor else "")
            line = f"  {mark}{problem}" + (f" [{place}]" if place else "")
            console.print(printable(line), markup=False, soft_wrap=True)
    for fix in dict.fromkeys(problem.fix for problem in report.problems if problem.fix):
        console.print(printable(f"  fix: {fix}"), markup=False, soft_wrap=True)
    if report.manifest and report.ok:
        console.print(f"  dirHash     {report.manifest.digests.dir_hash}")
        console.print(f"  tensorHash1 {report.manifest.digests.tensor_hash}")
        signer = f", by {report.signer}" if report.signer else ""
        console.print(f"  history     {report.tier}{signer}", markup=False, soft_wrap=True)
    for heading, lines in (("checked", report.checked), ("not checked", report.unchecked)):
        for index, line in enumerate(lines):
            label = f"{heading}:" if index == 0 else ""
            console.print(
                f"  {label:<13}{printable(line)}", markup=False, soft_wrap=True, style="dim"
            )


def _verdict(report: Report) -> str:
    codes = {problem.code for problem in report.problems}
    if "MISSING_LINEAGE" in codes:
        return "has no record"
    if report.is_unreadable:
        return "cannot be read"
    if report.manifest is None:
        return "does NOT match: its record or its files cannot be looked at safely"
    read = f"{report.num_files} files, {report.num_tensors} tensors, {size(report.num_bytes)}"
    if report.ok:
        return f"matches its manifest ({read})"
    if report.is_bytes_as_recorded:
        return f"matches its manifest, and is NOT accepted ({read})"
    return f"does NOT match ({read})"


def printable(text: str) -> str:
    """A line with its control characters written out: a stranger's names must not move the cursor or hide a verdict."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
