"""A recorded configuration in a few words: what differs from the adapter's defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import TYPE_CHECKING

from reuselib import catalog
from reuselib.adapter import as_json
from reuselib.errors import ReuseError

if TYPE_CHECKING:
    from reuselib.adapter import Json

_MAX_TEXT = 32


def settings_that_matter(kind: str | None, recipe: Mapping[str, Json]) -> dict[str, Json]:
    """Fields of a configuration that are not as the adapter has them by default, nested ones as `fit.epochs`.

    Of an adapter that is not installed here nothing is known, so all its fields count.
    """
    defaults = _defaults(kind) if kind else {}
    order = [*defaults, *(name for name in recipe if name not in defaults)]
    return dict(_changed({name: recipe[name] for name in order if name in recipe}, defaults, ""))


def in_short(settings: Mapping[str, Json], *, limit: int = 4) -> str:
    """`r=4, fit.epochs=2`; of more than `limit` settings the others are counted only."""
    shown = [f"{name}={_short(value)}" for name, value in [*settings.items()][:limit]]
    if len(settings) > limit:
        shown.append(f"{len(settings) - limit} more")
    return ", ".join(shown)


@cache
def _defaults(kind: str) -> dict[str, Json]:
    try:
        adapter = catalog.adapter(kind)
    except ReuseError:
        return {}
    found: dict[str, Json] = {}
    for each in fields(adapter):  # type: ignore[arg-type]
        made = each.default_factory() if each.default_factory is not MISSING else each.default
        if made is not MISSING:
            found[each.name] = as_json(made)
    return found


def _changed(
    values: Mapping[str, Json], defaults: Mapping[str, Json], prefix: str
) -> Iterator[tuple[str, Json]]:
    for name, value in values.items():
        default = defaults.get(name, MISSING)
        if isinstance(value, dict) and isinstance(default, dict):
            yield from _changed(value, default, f"{prefix}{name}.")
        elif value != default:
            yield f"{prefix}{name}", value


def _short(value: Json) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        few = ",".join(_short(item) for item in value[:3])
        return f"[{few}{',...' if len(value) > 3 else ''}]"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."
