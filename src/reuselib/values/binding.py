"""Plain values to the dataclasses they stand for: strictly, by the types of the fields, all problems at once.

The types are the only definition: what a constructor takes is what a recipe may say. Integers are taken where a
fraction is wanted, lists become tuples; nothing else is converted.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final, Literal, Union

from reuselib.catalog import nearest
from reuselib.errors import Problem, RecipeError, ReuseError
from reuselib.values.document import Document, Path, spell, unspell
from reuselib.values.fields import field_types, is_required, keyed_by
from reuselib.values.wording import (
    WORDS,
    crowded,
    describe,
    example_of,
    mismatch,
    no_kind,
    one_line,
    show,
    unknown_key,
)

FAILED: Final = object()
"""Stands for a value that could not be read; why is among the problems."""


@dataclass(frozen=True)
class Family:
    """Classes that are written as a one-key mapping `{kind: {fields}}`: adapters and tasks."""

    name: str
    kinds: tuple[str, ...]
    load: Callable[[str], type]


@dataclass
class Binder:
    """Reads one document."""

    document: Document
    families: Mapping[type, Family]
    """By abstract class."""
    problems: list[Problem] = field(default_factory=list)

    def bind(self, hint: Any, value: Any, path: Path) -> Any:
        """The value of type `hint` that `value` stands for, or FAILED."""
        origin = typing.get_origin(hint)
        if hint in self.families:
            return self._named(self.families[hint], value, path)
        if is_dataclass(hint):
            cls = typing.cast("type", hint)
            bind = self._keyed if keyed_by(cls) else self._dataclass
            return bind(cls, value, path)
        if origin in (Union, types.UnionType):
            return self._union(hint, value, path)
        if origin is Literal:
            return self._literal(hint, value, path)
        if origin in (tuple, list, Sequence):
            return self._sequence(hint, value, path)
        if origin in (dict, Mapping):
            return self._mapping(hint, value, path)
        return self._scalar(hint, value, path)

    def report(self, path: Path, message: str) -> object:
        """Note a problem, unless the same place was already found wanting; returns FAILED."""
        if spell(path) not in {problem.key for problem in self.document.problems}:
            self.problems.append(self.document.problem(path, message))
        return FAILED

    def _named(self, family: Family, value: Any, path: Path) -> Any:
        """`{kind: {fields}}`, or the kind alone."""
        if isinstance(value, str):
            value = {value: None}
        if not isinstance(value, dict) or not value:
            example = f"{{{family.kinds[0]}: {{}}}}"
            return self.report(
                path, f"expected one {family.name}, such as `{example}`; got {show(value)}"
            )
        kind, *others = value
        if kind not in family.kinds:
            self.report((*path, kind), no_kind(family, kind))
            return FAILED
        try:
            cls = family.load(kind)
        except ReuseError as error:
            return self.report((*path, kind), one_line(error))
        bound = self._dataclass(cls, value[kind], (*path, kind))
        if others:
            return self.report((*path, others[0]), crowded(family, kind, others[0], cls))
        return bound

    def _keyed(self, cls: type, value: Any, path: Path) -> Any:
        """`{key: {fields}}`, where the key is the value of one of the fields."""
        key_field = keyed_by(cls)
        if not isinstance(value, dict) or len(value) != 1:
            told = f"expected one {key_field} with its fields, such as `{{{key_field}: {{...}}}}`; got {show(value)}"
            if isinstance(value, dict) and len(value) > 1:
                told += ". Begin a new item of the list for each"
            return self.report(path, told)
        [(key, inner)] = value.items()
        return self._dataclass(cls, inner, (*path, key), {key_field: key})

    def _dataclass(
        self, cls: type, value: Any, path: Path, given: Mapping[str, Any] | None = None
    ) -> Any:
        """A mapping of fields; left empty, all defaults. What is `given` is not written in it."""
        if value is None:
            value = {}
        given = given or {}
        own = {each.name: each for each in fields(cls) if each.init and each.name not in given}
        if not isinstance(value, dict):
            return self.report(
                path, f"expected a mapping, such as `{example_of(own, value)}`; got {show(value)}"
            )
        types_ = field_types(cls)
        bound: dict[str, Any] = dict(given)
        for key, inner in value.items():
            if key in own:
                bound[key] = self.bind(types_[key], inner, (*path, key))
            else:
                bound[key] = self.report((*path, key), unknown_key(key, cls, path))
        for key in own:
            if key not in value and is_required(own[key]):
                bound[key] = self.report(
                    (*path, key), f"is missing; expected {describe(types_[key])}"
                )
        return FAILED if FAILED in bound.values() else self._construct(cls, bound, path)

    def _construct(self, cls: type, values: dict[str, Any], path: Path) -> Any:
        try:
            return cls(**values)
        except RecipeError as error:
            for problem in error.problems:
                self.report((*path, *unspell(problem.key)), problem.message)
            return FAILED
        except (ReuseError, ValueError, TypeError) as error:
            return self.report(path, one_line(error))

    def _union(self, hint: Any, value: Any, path: Path) -> Any:
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        if value is None and len(options) < len(typing.get_args(hint)):
            return None
        if len(options) == 1:
            return self.bind(options[0], value, path)
        # The exact type first: otherwise 1 would become 1.0 where both are allowed.
        for option in sorted(options, key=lambda option: type(value) is not option):
            attempt = Binder(self.document, self.families)
            if (bound := attempt.bind(option, value, path)) is not FAILED:
                return bound
        return self.report(path, mismatch(hint, value))

    def _literal(self, hint: Any, value: Any, path: Path) -> Any:
        allowed = typing.get_args(hint)
        if any(value == option and type(value) is type(option) for option in allowed):
            return value
        guess = nearest(str(value), [str(option) for option in allowed])
        message = f"expected {describe(hint)}; got {show(value)}"
        return self.report(path, message + (f". Did you mean `{guess}`?" if guess else ""))

    def _sequence(self, hint: Any, value: Any, path: Path) -> Any:
        if not isinstance(value, list):
            hint_ = f". Write `[{value}]`" if isinstance(value, str | int | float) else ""
            return self.report(path, f"expected {describe(hint)}; got {show(value)}{hint_}")
        arguments = typing.get_args(hint)
        if typing.get_origin(hint) is tuple and Ellipsis not in arguments:
            if len(value) != len(arguments):
                return self.report(path, f"expected {describe(hint)}; got {show(value)}")
            inner = arguments
        else:
            inner = (arguments[0],) * len(value)
        bound = [self.bind(inner[i], each, (*path, i)) for i, each in enumerate(value)]
        if any(each is FAILED for each in bound):
            return FAILED
        return bound if typing.get_origin(hint) is list else tuple(bound)

    def _mapping(self, hint: Any, value: Any, path: Path) -> Any:
        if not isinstance(value, dict):
            return self.report(path, mismatch(hint, value))
        inner = typing.get_args(hint)[1]
        bound = {key: self.bind(inner, each, (*path, key)) for key, each in value.items()}
        return FAILED if any(each is FAILED for each in bound.values()) else bound

    def _scalar(self, hint: Any, value: Any, path: Path) -> Any:
        if hint is float and type(value) is int:
            return float(value)
        if hint in WORDS:
            return value if type(value) is hint else self.report(path, mismatch(hint, value))
        if hint is Any or hint is object:
            return value
        return self.report(
            path, f"a field of type {hint} cannot be written in a recipe; set it in Python"
        )
