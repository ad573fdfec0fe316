"""Changes to a recipe from the command line: `steps[0].lora.fit.epochs=1`."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

from reuselib.adapter import Json
from reuselib.errors import Problem, RecipeError
from reuselib.values.document import Document, Path, parse, spell

_KEY = re.compile(r"[A-Za-z_]\w*(\[\d+\]|\.[A-Za-z_][\w-]*)*")
_PART = re.compile(r"\[(\d+)\]|([A-Za-z_][\w-]*)")


def override(document: Document, arguments: Sequence[str]) -> Document:
    """The document with each `key=value` put in place; the value is read as YAML.

    Problems of a value are later reported with the argument in the place of file and line.

    Raises:
        RecipeError: arguments that are malformed or point nowhere, all of them.
    """
    value, places = copy.deepcopy(document.value), dict(document.places)
    problems: list[Problem] = []
    for argument in arguments:
        try:
            path, new = _split(argument)
            _put(value, path, new)
        except ValueError as error:
            problems.append(Problem(argument, "", str(error)))
        except RecipeError as error:  # the value is not YAML
            problems += [Problem(argument, "", problem.message) for problem in error.problems]
        else:
            places = {key: place for key, place in places.items() if key[: len(path)] != path}
            places[path] = argument
    if problems:
        raise RecipeError(problems)
    overridden = tuple(spell(path) for path, place in places.items() if place in arguments)
    left = tuple(
        each for each in document.problems if not each.key.startswith(overridden or ("\0",))
    )
    return replace(document, value=value, places=places, problems=left)


def _split(argument: str) -> tuple[Path, Json]:
    key, equals, text = argument.partition("=")
    if not equals:
        raise ValueError("expected `key=value`, such as `seed=3` or `steps[0].lora.r=4`")
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"'{key}' is not the path of a field; write it like `steps[0].lora.fit.epochs`"
        )
    read = parse(text)
    if read.problems:
        raise RecipeError(read.problems)
    path = tuple(int(index) if index else name for index, name in _PART.findall(key))
    return path, read.value


def _put(root: Json, path: Path, new: Json) -> None:
    """Set the value at `path`, adding mappings on the way where nothing was written yet."""
    at = root
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(part, int):
            if not isinstance(at, list):
                raise ValueError(f"`{spell(path[:depth])}` is not a list")
            if part >= len(at):
                raise ValueError(
                    f"there is no `{spell(path[: depth + 1])}`: {_count(len(at))}, counted from 0"
                )
        elif not isinstance(at, dict):
            raise ValueError(f"`{spell(path[:depth])}` is not a mapping, so it has no `{part}`")
        if last:
            at[part] = new  # type: ignore[index]
        else:
            at = _enter(at, part)


def _enter(at: dict[str, Json] | list[Json], part: str | int) -> Json:
    """The value inside, made a mapping if it is left out or a bare name such as `- merge`."""
    inner = at.get(part) if isinstance(at, dict) else at[part]  # type: ignore[index, arg-type]
    if inner is None:
        inner = {}
    elif isinstance(inner, str) and isinstance(part, int):
        inner = {inner: None}
    at[part] = inner  # type: ignore[index]
    return inner


def _count(length: int) -> str:
    return f"there is {length} item" if length == 1 else f"there are {length} items"
