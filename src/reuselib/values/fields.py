"""What a dataclass says of its fields: the only definition of what may be written."""

from __future__ import annotations

import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from reuselib.errors import ReuseError


def field_types(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name.

    Raises:
        ReuseError: one cannot be resolved when the program runs.
    """
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise ReuseError(
            f"the fields of {cls.__module__}.{cls.__qualname__} have a type that is unknown at run time: {error}",
            fix="import it for real, not under TYPE_CHECKING: recipes are checked by these types",
        ) from error


def keyed_by(cls: type) -> str:
    """The field of a class whose value is written as the key of a one-key mapping; empty if there is none."""
    return str(getattr(cls, "keyed_by", ""))


def is_required(each: Field[Any]) -> bool:
    """Whether a field must be given."""
    return each.default is MISSING and each.default_factory is MISSING


def nested(cls: type, prefix: str = "") -> dict[str, str]:
    """Fields of the dataclasses that are fields of a class: name -> dotted path."""
    found: dict[str, str] = {}
    for name, hint in field_types(cls).items():
        for option in (hint, *typing.get_args(hint)):
            if is_dataclass(option):
                inner = typing.cast("type", option)
                found |= {each.name: f"{prefix}{name}.{each.name}" for each in fields(inner)}
                found |= nested(inner, f"{prefix}{name}.")
    return found
