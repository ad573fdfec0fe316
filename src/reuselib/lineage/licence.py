"""Under which terms a model is had, as somebody stated it: read for the record, never judged here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reuselib.errors import RecipeError
from reuselib.values.front_matter import read_front_matter

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.manifest import Manifest

_FORM = re.compile(r"[A-Za-z0-9][\w.+ ()/:-]{0,199}")
"""Identifiers and expressions; anything else is no name that could be looked up."""


@dataclass(frozen=True)
class Licence:
    """Terms by name, and how they are known."""

    name: str
    """As it was stated: an SPDX identifier or expression, or the name that a hub gives, such as `llama3.1`."""
    source: Literal["declared", "inherited"] = "declared"
    """`declared` by who published the model, `inherited` from the only terms of all it was made from."""

    def to_json(self) -> dict[str, Json]:
        """As annotations of a model."""
        return {"license": self.name, "license_source": self.source}

    @classmethod
    def parse(cls, annotations: Mapping[str, Json]) -> Licence | None:
        """Read what `to_json` gave; None if there is nothing or it has no form of a name."""
        name = _name(annotations.get("license"))
        inherited = annotations.get("license_source") == "inherited"
        return cls(name, "inherited" if inherited else "declared") if name else None


def licence_of(manifest: Manifest, folder: Path) -> Licence | None:
    """What a model's own manifest says or, if that is silent, the card of its folder."""
    return Licence.parse(manifest.annotations) or carded_licence(folder)


def carded_licence(folder: Path) -> Licence | None:
    """What the front matter of a folder's model card says; a card that cannot be read says nothing."""
    try:
        document = read_front_matter(folder)
    except RecipeError:
        return None
    front = document.value if document else None
    return licence_on_card(front) if isinstance(front, dict) else None


def licence_on_card(front: Mapping[str, Json]) -> Licence | None:
    """`license` of a card's front matter, or `license_name` where that is `other`. Of several, all apply."""
    stated = front.get("license")
    if stated == "other":
        stated = front.get("license_name", stated)
    names = [_name(each) for each in (stated if isinstance(stated, list) else [stated])]
    return Licence(" AND ".join(dict.fromkeys(names))) if all(names) and names else None


def inherited(licences: Iterable[Licence | None]) -> Licence | None:
    """What a child has without anybody's word: the terms of all its parents, if those are known and the same."""
    every = list(licences)
    names = {each.name.lower() if each else "" for each in every}
    first = every[0] if every else None
    return Licence(first.name, "inherited") if first and len(names) == 1 else None


def _name(value: Json) -> str:
    return value if isinstance(value, str) and _FORM.fullmatch(value) else ""
