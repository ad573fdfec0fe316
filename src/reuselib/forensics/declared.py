"""What a folder without a manifest says about its parents: claims of whoever wrote the files, checked by nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, RecipeError
from reuselib.lineage import canonical
from reuselib.values.front_matter import CARD, read_front_matter

if TYPE_CHECKING:
    from reuselib.adapter import Json

MAX_PARENTS = 64
"""More models than this no card names in earnest."""
_CONFIGS = {"adapter_config.json": "base_model_name_or_path", "config.json": "_name_or_path"}


@dataclass(frozen=True)
class Declared:
    """One parent that a file names."""

    name: str
    """As it stands there: a hub id or a path of somebody's machine."""
    source: str
    """The file."""
    relation: str = ""
    """`base_model_relation` of the card."""


def declared_parents(folder: Path) -> tuple[Declared, ...]:
    """The parents that card and configurations name, each once; what cannot be read names none."""
    found: dict[str, Declared] = {}
    for each in (*_of_card(folder), *_of_configs(folder)):
        found.setdefault(each.name, each)
    return tuple(found.values())[:MAX_PARENTS]


def read_config(folder: Path, name: str) -> dict[str, Json]:
    """A JSON file at the top of a folder; empty if there is none, or none that can be read strictly."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            value = canonical.loads(file.read(canonical.MAX_BYTES + 1))
    except (OSError, IntegrityError):
        return {}
    return value if isinstance(value, dict) else {}


def _of_card(folder: Path) -> Iterator[Declared]:
    try:
        document = read_front_matter(folder)
    except RecipeError:
        return
    front = document.value if document else None
    if not isinstance(front, dict):
        return
    named, relation = front.get("base_model"), front.get("base_model_relation")
    for name in named if isinstance(named, list) else [named]:
        if isinstance(name, str) and name:
            yield Declared(name, CARD, relation if isinstance(relation, str) else "")


def _of_configs(folder: Path) -> Iterator[Declared]:
    for file, key in _CONFIGS.items():
        name = read_config(folder, file).get(key)
        if isinstance(name, str) and name:
            yield Declared(name, file, "adapter" if file.startswith("adapter") else "")
