"""What a run would reuse, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from reuselib.derivation.forecast import Forecast


def show(steps: Sequence[Forecast]) -> None:
    """Print one row a step, and where it would begin."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("step", "what", "derivation id"):
        table.add_column(heading)
    for each in steps:
        name = each.derivation_id or "will be computed"
        table.add_row(Text(each.adapter), Text(_what(each)), Text(name, overflow="fold"))
    console = Console(highlight=False)
    console.print(table)
    missing = [each for each in steps if not each.reused]
    last = steps[-1]
    told = (
        f"a run would compute {len(missing)} of {len(steps)} steps, from {missing[0].adapter} on"
        if missing
        else (f"nothing would be computed; model: {last.folder}")
    )
    console.print(told, markup=False, soft_wrap=True)


def _what(each: Forecast) -> str:
    if each.packed:
        return "reused, once unpacked"
    if each.reused:
        return "reused"
    if each.in_progress:
        return "another run is making it"
    if each.checkpoint is not None:
        return f"goes on after step {each.checkpoint.step} of {each.checkpoint.num_steps}"
    return "computed"
