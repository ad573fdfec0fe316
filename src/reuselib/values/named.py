"""Adapters and tasks by name: `{kind: {fields}}` to the object, as recipes and manifests write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from reuselib import catalog
from reuselib.adapter import Adapter, Json
from reuselib.errors import Problem, RecipeError
from reuselib.task import Task
from reuselib.values.binding import FAILED, Binder, Family
from reuselib.values.document import Document

_V = TypeVar("_V")


def families(adapters: Sequence[type[Adapter]] = ()) -> Mapping[type, Family]:
    """What can be named: the catalog, and the adapter classes that the caller brings.

    Raises:
        RecipeError: a class that is brought has the kind of another one.
    """
    brought = {each.kind: each for each in adapters}
    known = catalog.entries(catalog.ADAPTER_GROUP)
    tasks = catalog.entries(catalog.TASK_GROUP)
    if clash := sorted(brought.keys() & known.keys()):
        raise RecipeError(
            [Problem("", "", f"'{clash[0]}' is in the catalog already; give yours another kind")]
        )

    def load(kind: str) -> type:
        return brought[kind] if kind in brought else known[kind].load(Adapter)

    return {
        Adapter: Family("adapter", (*known, *brought), load),
        Task: Family("task", tuple(tasks), lambda kind: tasks[kind].load(Task)),
    }


def parse_adapter(value: Json) -> Adapter:
    """The adapter that `Adapter.describe` wrote.

    Raises:
        RecipeError: there is no such adapter here, or its fields do not fit.
    """
    return parse_value(Adapter, value)


def parse_task(value: Json) -> Task:
    """The task that `Task.describe` wrote; otherwise as `parse_adapter`."""
    return parse_value(Task, value)


def parse_value(kind: type[_V], value: Json) -> _V:
    """An object of that class from plain values, checked as strictly as a recipe; otherwise as `parse_adapter`."""
    binder = Binder(Document(value, {}, ""), families())
    found = binder.bind(kind, value, ())
    if found is FAILED:
        raise RecipeError(binder.problems)
    return cast("_V", found)
