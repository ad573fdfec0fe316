"""What the catalog holds, and what each thing in it can be told."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import asdict, dataclass

from reuselib import catalog
from reuselib.adapter import Adapter, Json, as_json
from reuselib.errors import ReuseError
from reuselib.task import Task


@dataclass(frozen=True)
class Row:
    """One entry of the catalog."""

    kind: str
    what: str
    """First line of its docstring; empty if it cannot be loaded."""
    origin: str
    """The package that brings it."""
    fault: str = ""
    """Why it cannot be used."""

    def to_json(self) -> dict[str, Json]:
        """As printed with `--json`."""
        return asdict(self)


def rows(group: str) -> list[Row]:
    """The entries of a group; those that cannot be loaded say why."""
    contract = Adapter if group == catalog.ADAPTER_GROUP else Task
    found: list[Row] = []
    for kind, entry in catalog.entries(group).items():
        try:
            what = (entry.load(contract).__doc__ or "").strip().splitlines()[0]
            found.append(Row(kind, what, entry.origin))
        except ReuseError as error:
            found.append(Row(kind, "", entry.origin, str(error)))
    return found


def show(found: list[Row]) -> None:
    """Print entries as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "what it does", "from"):
        table.add_column(heading)
    for row in found:
        what = (
            Text(row.what) if not row.fault else Text(f"cannot be used: {row.fault}", style="red")
        )
        table.add_row(Text(row.kind), what, Text(row.origin))
    Console(highlight=False).print(table)


def show_one(cls: type) -> None:
    """Print the fields of an adapter or task: name, default, meaning."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from reuselib.recipe.schema import attribute_docs
    from reuselib.values.fields import field_types
    from reuselib.values.wording import describe

    console = Console(highlight=False)
    console.print(inspect.cleandoc(cls.__doc__ or ""), markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("key", "takes", "default", "meaning"):
        table.add_column(heading)
    notes, types = attribute_docs(cls), field_types(cls)
    for each in dataclasses.fields(cls):
        cells = (each.name, describe(types[each.name]), _default(each), notes.get(each.name, ""))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _default(each: dataclasses.Field[object]) -> str:
    import json

    if each.default is not dataclasses.MISSING:
        default = each.default
    elif each.default_factory is not dataclasses.MISSING:
        default = each.default_factory()
    else:
        return "(required)"
    return "see its keys" if dataclasses.is_dataclass(default) else json.dumps(as_json(default))
