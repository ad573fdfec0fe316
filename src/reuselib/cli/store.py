"""The verb that keeps a store small."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuselib.cli.application import app
from reuselib.cli.options import AsJson, Store, print_json

if TYPE_CHECKING:
    from reuselib.lineage.collection import Collected

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGT", start=1)}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?I?)B?", re.IGNORECASE)
NOT_SMALL_ENOUGH = 3


def num_bytes(text: str) -> int:
    """A size as people write it: `20GB`, `500 MB`, `1.5TiB`, or plain bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise typer.BadParameter(f"{text!r} is no size; write for example 20GB, 500MB or 1.5TiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


@app.command()
def gc(
    *,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Remove what was unused for longest until the store takes at most so much, such as 20GB.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="A child that stays, with all that it was made from; may be repeated.",
            show_default=False,
        ),
    ] = None,
    idle: Annotated[
        float,
        typer.Option(metavar="HOURS", min=0, help="Touch only what was not used for so long."),
    ] = 24.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make the store smaller: pack children that share tensors, and with --limit remove what nothing needs.

    A packed child is unpacked by itself when it is used. Exit code 3: the limit cannot be kept.
    """
    from reuselib.lineage.collection import collect
    from reuselib.lineage.store import Store as Place

    limit_bytes = num_bytes(limit) if limit is not None else None
    done = collect(
        Place.default(store),
        limit_bytes=limit_bytes,
        keep=keep or (),
        idle_seconds=3600 * idle,
        dry_run=dry_run,
    )
    if as_json:
        print_json(done.to_json())
    else:
        _show(done, Place.default(store).path)
    if not done.fits:
        raise typer.Exit(NOT_SMALL_ENOUGH)


def _show(done: Collected, path: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from reuselib.cli.figures import size

    console = Console(highlight=False)
    if done.items:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("", "what", "name", "bytes", "why"):
            table.add_column(heading, justify="right" if heading == "bytes" else "left")
        for each in done.items:
            action = (
                f"would be {each.action}" if done.dry_run and each.action != "kept" else each.action
            )
            gain = f"-{size(each.num_bytes)}" if each.action == "packed" else size(each.num_bytes)
            table.add_row(*map(Text, (action, each.what, each.name[:12], gain, each.why)))
        console.print(table)
    took, takes = ("takes", "would take") if done.dry_run else ("took", "takes")
    told = f"{path} {took} {size(done.num_bytes_before)}, and {takes} {size(done.num_bytes)}"
    console.print(f"{told} now" if not done.dry_run else told, markup=False, soft_wrap=True)
    if not done.fits:
        why = f"that is above the limit of {size(done.limit_bytes)}; what is kept says why"
        console.print(why, markup=False, soft_wrap=True)
