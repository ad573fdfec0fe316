"""A progress bar with the time that is left, on standard error, so that standard output stays clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reuselib.progress import Progress, Report
from reuselib.values.visible import visible_lines

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Report]:
    """Show what is reported within, unless `quiet`: one bar for each phase, kept when the phase is over."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False, style="dim"),
    )
    with Bars(*columns, console=Console(stderr=True, quiet=quiet)) as bars:
        reporter = _Reporter(bars)
        try:
            yield reporter
        finally:
            reporter.settle()


class _Reporter:
    """Turns reports into bars."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._phase = ""
        # Until the first report there is something to look at: loading takes some seconds.
        self._task: TaskID = bars.add_task("preparing", total=None, detail="")

    def settle(self) -> None:
        """Leave nothing turning over a message that says it came to no report at all."""
        if not self._phase:
            self._bars.remove_task(self._task)

    def __call__(self, progress: Progress) -> None:
        if progress.remark:
            told = visible_lines(f"{progress.phase}: {progress.remark}")
            self._bars.console.print(told, markup=False, highlight=False, soft_wrap=True)
            return
        total = progress.total or None  # unknown: the bar only pulses
        if progress.phase != self._phase:
            if not self._phase:
                self._bars.remove_task(self._task)
            self._phase = progress.phase
            self._task = self._bars.add_task(progress.phase, total=total, detail="")
        self._bars.update(self._task, completed=progress.done, total=total, detail=progress.detail)
