"""A YAML file as plain values, with the line of each: strict, and nothing is ever constructed or executed.

Works on the parser's events instead of PyYAML's loaders, because those drop repeated keys, forget lines, expand
aliases and read `no` as a truth value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from reuselib.adapter import Json
from reuselib.errors import Problem, RecipeError
from reuselib.values.scalars import plain

if TYPE_CHECKING:
    from yaml.events import Event

Path: TypeAlias = "tuple[str | int, ...]"

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 50_000
"""The parser takes some 50 microseconds for each, so that a file of a megabyte could keep it busy for half a minute."""


@dataclass(frozen=True)
class Document:
    """Plain values, and where each was written."""

    value: Json
    places: Mapping[Path, str]
    """`file:line`, or the argument of an override, by path."""
    name: str
    """The file's name as the user wrote it; empty if the text came from memory."""
    problems: tuple[Problem, ...] = ()
    """What is wrong although the values could be read, such as repeated keys."""

    def where(self, path: Path) -> str:
        """The place of a path, or of the nearest one around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.name

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at a path."""
        return Problem(self.where(path), spell(path), message)


def spell(path: Path) -> str:
    """`("steps", 0, "lora", "r")` as `steps[0].lora.r`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def unspell(text: str) -> Path:
    """The path that `spell` wrote."""
    parts = re.findall(r"\[(\d+)\]|([^.\[\]]+)", text)
    return tuple(int(index) if index else name for index, name in parts)


def parse(text: str, name: str = "") -> Document:
    """Read one YAML document.

    Args:
        text: the document.
        name: what to call it in problems.

    Raises:
        RecipeError: it is not YAML, or too large, or more than one document.
    """
    import yaml

    if len(text) > MAX_BYTES:
        raise _refused(name, f"{len(text):,} characters, but a recipe has at most {MAX_BYTES:,}")
    builder = _Builder(name)
    try:
        value = builder.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        # What is left open is told where it was opened, not where the parser gave up.
        is_open = any(word in (error.context or "") for word in ("flow", "quoted", "simple key"))
        mark = (error.context_mark if is_open else None) or error.problem_mark
        line = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError([Problem(line, "", _explain(error, text))]) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        what = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML; remove it"
        raise RecipeError([Problem(f"{name}:{line}", "", what)]) from error
    return Document(value, builder.places, name, tuple(builder.problems))


def _refused(name: str, message: str) -> RecipeError:
    return RecipeError([Problem(name, "", message)])


@dataclass
class _Builder:
    """Turns events into values; one for each document."""

    name: str
    places: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    num_values: int = 0

    def document(self, events: Iterator[Event]) -> Json:
        from yaml.events import DocumentStartEvent, StreamEndEvent

        next(events)  # start of the stream
        if isinstance(event := next(events), StreamEndEvent):
            return None
        value = self._value(next(events), events, ())
        next(events)  # end of the document
        if isinstance(event := next(events), DocumentStartEvent):
            self._report(
                (), event, "a second document begins here (`---`); a recipe is one document"
            )
        return value

    def _value(self, event: Event, events: Iterator[Event], path: Path) -> Json:
        from yaml import events as kinds

        self.num_values += 1
        if self.num_values > MAX_VALUES:
            raise _refused(self._place(event), f"more than {MAX_VALUES:,} values")
        self.places.setdefault(path, self._place(event))
        if anchor := getattr(event, "anchor", None):
            sign = "*" if isinstance(event, kinds.AliasEvent) else "&"
            self._report(
                path,
                event,
                f"`{sign}{anchor}`: anchors and aliases are not allowed; write it out",
            )
        if tag := getattr(event, "tag", None):
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            self._report(
                path, event, f"the tag `{tag}` is not allowed: a recipe is plain data; remove it"
            )
        if len(path) > MAX_DEPTH:
            raise _refused(self._place(event), f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, kinds.MappingStartEvent):
            return self._mapping(events, path)
        if isinstance(event, kinds.SequenceStartEvent):
            return self._sequence(events, path)
        return self._scalar(event, path)

    def _mapping(self, events: Iterator[Event], path: Path) -> dict[str, Json]:
        from yaml.events import MappingEndEvent, ScalarEvent

        values: dict[str, Json] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                self._report(path, event, "a key must be a name, not a list or a mapping")
                self._value(event, events, (*path, "?"))
                self._value(next(events), events, (*path, "?"))
                continue
            key = event.value
            inner = (*path, key)
            if key in values:
                first = self.places[inner]
                self._report(
                    inner, event, f"`{key}` is given twice; the first is at {first}. Keep one"
                )
                self._value(next(events), events, (*path, "?"))
                continue
            self.places[inner] = self._place(event)
            values[key] = self._value(next(events), events, inner)
        return values

    def _sequence(self, events: Iterator[Event], path: Path) -> list[Json]:
        from yaml.events import SequenceEndEvent

        values: list[Json] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            values.append(self._value(event, events, (*path, len(values))))
        return values

    def _scalar(self, event: Event, path: Path) -> Json:
        text = getattr(event, "value", "")
        if getattr(event, "style", None):  # quoted, or a block: always a string
            return text
        try:
            return plain(text)
        except ValueError as error:
            self._report(path, event, str(error))
            return None

    def _place(self, event: Event) -> str:
        line = event.start_mark.line + 1
        return f"{self.name}:{line}" if self.name else f"line {line}"

    def _report(self, path: Path, event: Event, message: str) -> None:
        self.problems.append(Problem(self._place(event), spell(path), message))


def _explain(error: Exception, text: str) -> str:
    """The parser's complaint in words that help."""
    problem = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None) or ""
    mark = getattr(error, "problem_mark", None)
    line = (text.splitlines()[mark.line : mark.line + 1] if mark else None) or [""]
    if "\t" in line[0][: len(line[0]) - len(line[0].lstrip())]:
        return "the line is indented with a tab; YAML wants spaces (two a level)"
    if "mapping values are not allowed" in problem:
        return (
            "a `key: value` where none can be: indent it like the lines around it, write the colon that is missing "
            "in the line above, or put quotes around a value that contains `: `"
        )
    if "while parsing a flow" in context:
        return "a `{` or `[` is not closed, or a comma is missing"
    if "unexpected end of stream" in problem:
        return "the file ends inside quotes; close them"
    if "expected <block end>" in problem:
        return "the indentation does not fit the lines above; keys of one mapping start in the same column"
    if "could not find expected ':'" in problem:
        return "a key without a colon; write `key: value`"
    return f"not YAML: {f'{context}, ' if context else ''}{problem}"
