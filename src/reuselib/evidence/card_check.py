"""What a model card and an adapter's configuration say, against what the record says: each difference by name.

The record is what `verify` binds by digest; card and configuration are what people and libraries read first. The card
that the record itself gives (`exchange.card`) is what the stated one is held against.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from reuselib.errors import RecipeError, ReuseError
from reuselib.evidence.claims import Claim
from reuselib.exchange.card import front
from reuselib.exchange.dossier import Dossier, hub_name
from reuselib.lineage import canonical
from reuselib.values.front_matter import CARD, read_front_matter

if TYPE_CHECKING:
    from reuselib.adapter import Json

ADAPTER_CONFIG = "adapter_config.json"
_COMPARED = ("base_model", "base_model_relation", "license", "datasets", "lineage")
"""Keys of the front matter that say something about lineage or terms."""
_LISTS = ("base_model", "datasets")
_MAX_CARD = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is stated in two ways."""

    place: str
    """`README.md` or `adapter_config.json`."""
    key: str
    stated: Json
    recorded: Json
    """None if the record says nothing about it."""

    @property
    def is_figure(self) -> bool:
        """Whether it is about how good the model is."""
        return self.key.startswith(("model-index: ", "table: "))

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return dict(vars(self))

    def __str__(self) -> str:
        """For people."""
        known = (
            "the record says nothing of it"
            if self.recorded is None
            else f"recorded {_shown(self.recorded)}"
        )
        return f"{self.place}: {self.key} is {_shown(self.stated)}, {known}"


@dataclass(frozen=True)
class CardCheck:
    """What came of comparing."""

    differences: tuple[Difference, ...] = ()
    silent: tuple[str, ...] = ()
    """What the record says and the card does not."""
    unchecked: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "differences": [each.to_json() for each in self.differences],
            "silent": [*self.silent],
            "unchecked": [*self.unchecked],
        }


def check_card(folder: Path) -> CardCheck:
    """Hold the card of a folder, and the configuration of an adapter in it, against the record."""
    try:
        dossier = Dossier.read(folder)
        document = read_front_matter(folder)
    except RecipeError as error:
        return CardCheck(unchecked=(f"the card: {error.problems[0]}",))
    except ReuseError as error:
        return CardCheck(unchecked=(f"the card against the record: {error.what}",))
    expected = front(dossier)
    stated = document.value if document else None
    if not isinstance(stated, dict):
        found = tuple(_adapter(folder, dossier))
        return CardCheck(found, tuple(key for key in _COMPARED if key in expected))
    differences = (
        *_keys(stated, expected),
        *_results(stated, dossier.figures.after),
        *_table(folder, dossier.figures.after),
        *_adapter(folder, dossier),
    )
    silent = tuple(
        key for key in (*_COMPARED, "model-index") if expected.get(key) and not stated.get(key)
    )
    problems = document.problems if document else ()
    return CardCheck(
        differences, silent, tuple(f"a part of the card: {problem}" for problem in problems)
    )


def _keys(stated: Mapping[str, Json], expected: Mapping[str, Json]) -> Iterator[Difference]:
    for key in _COMPARED:
        said, known = stated.get(key), expected.get(key)
        if said is None or (key == "license" and known is None):
            continue  # terms that the record does not know are the card's to state
        if not _agree(key, said, known):
            yield Difference(place=CARD, key=key, stated=said, recorded=known)


def _agree(key: str, said: Json, known: Json) -> bool:
    if key in _LISTS:
        return _as_set(said) == _as_set(known)
    if isinstance(said, str) and isinstance(known, str):
        return said.lower() == known.lower()
    return said == known


def _as_set(value: Json) -> set[str]:
    return {str(each) for each in (value if isinstance(value, list) else [value])}


def _results(stated: Mapping[str, Json], after: Mapping[str, float]) -> Iterator[Difference]:
    """The numbers of `model-index`."""
    for name, value in _indexed(stated.get("model-index")):
        known = after.get(name)
        if known is None:
            yield Difference(place=CARD, key=f"model-index: {name}", stated=value, recorded=None)
        elif abs(known - value) > Claim(metric=name, value=value).allowance:
            yield Difference(place=CARD, key=f"model-index: {name}", stated=value, recorded=known)


def _indexed(index: Json) -> Iterator[tuple[str, float]]:
    """Metrics wherever they are in it: a mapping with a type and a value."""
    left = [index]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += reversed(value)
        elif isinstance(value, dict):
            name, number = value.get("type"), value.get("value")
            if isinstance(name, str) and isinstance(number, int | float):
                yield name, float(number)
            left += reversed(list(value.values()))


def _table(folder: Path, after: Mapping[str, float]) -> Iterator[Difference]:
    """Rows of tables on the page that begin with the name of a metric: the first number is the claim."""
    with (folder / CARD).open("rb") as file:
        page = file.read(_MAX_CARD).decode("utf-8", "replace")
    for name, known in after.items():
        row = re.compile(
            rf"^\|[ *`]*{re.escape(name)}[ *`]*\|[ *`]*(-?\d+(?:\.\d+)?)",
            re.MULTILINE | re.IGNORECASE,
        )
        for found in row.finditer(page):
            value = float(found[1])
            if abs(known - value) > Claim(metric=name, value=value).allowance:
                yield Difference(place=CARD, key=f"table: {name}", stated=value, recorded=known)


def _adapter(folder: Path, dossier: Dossier) -> Iterator[Difference]:
    """What peft would open as the base."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return
    try:
        config = canonical.loads(path.read_bytes()[: canonical.MAX_BYTES + 1], path=ADAPTER_CONFIG)
    except ReuseError:
        return  # `scan` says that it is ambiguous
    stated = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    base = dossier.manifest.parents[0]
    known = {hub_name(each.uri) for each in (base, dossier.root(base))}
    names = known | {each.removeprefix("file:") for each in known if each.startswith("file:")}
    if isinstance(stated, str) and stated and not {stated, PurePosixPath(stated).name} & names:
        yield Difference(
            place=ADAPTER_CONFIG,
            key="base_model_name_or_path",
            stated=stated,
            recorded=hub_name(base.uri),
        )


def _shown(value: Json) -> str:
    """In few characters, none of which write on a terminal."""
    text = (
        value
        if isinstance(value, str)
        else canonical.dumps(value).decode()
        if isinstance(value, dict | list)
        else str(value)
    )
    text = text.encode("unicode_escape").decode()
    return text if len(text) <= 120 else f"{text[:117]}..."
