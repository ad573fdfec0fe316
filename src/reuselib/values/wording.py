"""Values and types in words: what was expected, what was given, and what was probably meant."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

from reuselib.catalog import nearest, no_such
from reuselib.values import hints
from reuselib.values.fields import is_required, keyed_by, nested
from reuselib.values.scalars import lookalike

if TYPE_CHECKING:
    from reuselib.values.binding import Family
    from reuselib.values.document import Path

WORDS: dict[object, str] = {
    bool: "true or false", int: "an integer", float: "a number", str: "a string", types.NoneType: "null",
}  # fmt: skip
_LONGEST_EXAMPLE = 80
"""Characters of a value that an example repeats."""


def describe(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in WORDS:
        return WORDS[hint]
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is Literal:
        return " or ".join(f"`{option}`" for option in arguments)
    if origin in (tuple, list, Sequence):
        if origin is tuple and Ellipsis not in arguments:
            return f"a list of {len(arguments)}: {', '.join(describe(each) for each in arguments)}"
        return f"a list (each {describe(arguments[0])})"
    if origin in (dict, Mapping) or is_dataclass(hint):
        return "a mapping"
    return f"one {hint.__name__.lower()}" if isinstance(hint, type) else "a value"


def mismatch(hint: Any, value: Any) -> str:
    """Expected this, got that, and how to write what was probably meant."""
    message = f"expected {describe(hint)}; got {show(value)}"
    if isinstance(value, str) and hint is not str:
        meant = lookalike(value)
        if meant and (meant in ("true", "false")) == (hint is bool):
            return f"{message}. Write `{meant}`, without quotes"
    if hint is str and isinstance(value, bool | int | float):
        return f"{message}. Write it in quotes"
    if hint is int and isinstance(value, float) and value.is_integer():
        return f"{message}. Write `{int(value)}`"
    return message


def show(value: Any) -> str:
    """A received value, short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return (
            f"a mapping with the keys {', '.join(map(str, value))}" if value else "an empty mapping"
        )
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(error: Exception) -> str:
    """A several-line error as one."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def example_of(own: Mapping[str, Field[Any]], value: Any) -> str:
    """A mapping that could stand in the place of a lone value."""
    if not own:
        return "{}"
    first = next(iter(own.values()))
    shown = value if isinstance(value, str | int | float) or is_required(first) else first.default
    text = str(shown)
    # what is long is no setting but a file given by mistake, such as a private key
    return f"{{{first.name}: {text if len(text) <= _LONGEST_EXAMPLE else '...'}}}"


def unknown_key(key: str, cls: type, path: Path) -> str:
    """Why a key is refused, and which one was meant: by translation, by nesting, or by likeness."""
    names = [each.name for each in fields(cls) if each.init and each.name != keyed_by(cls)]
    if sentence := hints.translate(key, path):
        return f"unknown key; {sentence}"
    inside = nested(cls)
    if key in inside:
        return f"unknown key here; use `{inside[key]}`"
    guess = nearest(key, [*names, *inside])
    hint = f"did you mean `{inside.get(guess, guess)}`? " if guess else ""
    return f"unknown key; {hint}There are: {', '.join(names) or 'none'}"


def no_kind(family: Family, kind: str) -> str:
    """No class of a family is called that; which one was meant, if another tool calls one so."""
    ours = hints.STEPS.get(kind.lower())
    if ours in family.kinds:
        return f"no {family.name} is called '{kind}'; use `{ours}`"
    return no_such(family.name, kind, family.kinds)


def crowded(family: Family, kind: str, other: str, cls: type) -> str:
    """Two keys where one is allowed: nearly always a matter of indentation."""
    if other in {each.name for each in fields(cls)}:
        return f"belongs to `{kind}`: indent it two spaces more than `{kind}`"
    if other in family.kinds and family.name == "adapter":
        return f"one adapter a step; start a new step: `- {other}: ...`"
    return (
        f"one {family.name} here, but `{kind}` comes before it; {unknown_key(other, cls, (kind,))}"
    )
