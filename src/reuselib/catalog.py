"""Which adapters and tasks there are: one literal table each, and what installed packages add by entry points.

Nothing is imported until a class is asked for, so a package that does not load hurts nobody who does not use it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from reuselib.errors import Problem, RecipeError, ReuseError

if TYPE_CHECKING:
    from reuselib.adapter import Adapter
    from reuselib.task import Task

ADAPTERS: dict[str, str] = {
    "finetune": "reuselib.adapters.finetune:FineTune",
    "lora": "reuselib.adapters.lora:LoRA",
    "merge": "reuselib.adapters.merge:Merge",
    "prune": "reuselib.adapters.prune:Prune",
    "quantize": "reuselib.adapters.quantize:Quantize",
    "sparsify": "reuselib.adapters.sparsify:Sparsify",
    "distill": "reuselib.adapters.distill:Distill",
}
"""Kind -> `module:Class` of the adapters that come with reuselib, in the order in which they are listed."""

TASKS: dict[str, str] = {
    "text_classification": "reuselib.tasks.text_classification:TextClassification",
    "causal_lm": "reuselib.tasks.causal_lm:CausalLM",
    "image_classification": "reuselib.tasks.image_classification:ImageClassification",
}

ADAPTER_GROUP = "reuselib.adapters"
TASK_GROUP = "reuselib.tasks"
OURS = "reuselib"


@dataclass(frozen=True)
class Entry:
    """One name in the catalog. Knows where its class is, without importing it."""

    kind: str
    target: str
    """`module:Class`."""
    origin: str = OURS
    """The distribution that brings it, such as `acme-bitfit 1.0`."""
    rivals: tuple[str, ...] = ()
    """Other distributions that claim the same kind; the name is then ambiguous and cannot be used."""

    def load(self, contract: type) -> type:
        """Import the class and check that it is a frozen dataclass of this kind that keeps `contract`.

        Raises:
            ReuseError: the kind is claimed twice, the import fails, or what is found is not such a class.
        """
        if self.rivals:
            raise ReuseError(
                f"'{self.kind}' is claimed by {' and by '.join((self.origin, *self.rivals))}",
                expected="one owner for each kind, because manifests refer to it by name",
                fix=f"uninstall {self.rivals[0].split()[0]}, or ask its authors to rename the entry point",
            )
        module, _, name = self.target.partition(":")
        try:
            found = getattr(import_module(module), name)
        except Exception as error:
            raise ReuseError(
                f"'{self.kind}' from {self.origin} cannot be imported from {self.target}: "
                f"{type(error).__name__}: {error}",
                fix=f"reinstall or update {self.origin.split()[0]}; everything else works without it",
            ) from error
        if fault := _fault(found, self.kind, contract):
            raise ReuseError(
                f"'{self.kind}' from {self.origin}: {self.target} {fault}",
                expected=f"a frozen dataclass that extends {contract.__name__}, with kind = '{self.kind}'",
                fix=f"correct the class, or its entry point in {self.origin.split()[0]}",
            )
        return cast("type", found)


def _fault(found: object, kind: str, contract: type) -> str:
    if not (isinstance(found, type) and issubclass(found, contract)):
        return f"does not extend {contract.__name__}"
    if not is_dataclass(found) or not found.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "is not a frozen dataclass"
    declared = getattr(found, "kind", None)
    return "" if declared == kind else f"says kind = {declared!r}"


def entries(group: str) -> dict[str, Entry]:
    """What the catalog holds for `ADAPTER_GROUP` or `TASK_GROUP`: ours first, then those of other packages."""
    from importlib.metadata import entry_points  # costs more than the rest of this file; only here

    table = ADAPTERS if group == ADAPTER_GROUP else TASKS
    found = {kind: Entry(kind, target) for kind, target in table.items()}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        origin = (
            f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
        )
        rival = found.get(point.name)
        if rival is None:
            found[point.name] = Entry(point.name, point.value, origin)
        elif (rival.target, rival.origin) != (
            point.value,
            origin,
        ):  # the same one twice on the path is harmless
            found[point.name] = Entry(
                rival.kind, rival.target, rival.origin, (*rival.rivals, origin)
            )
    return found


def adapter(kind: str) -> type[Adapter]:
    """The adapter class of that kind.

    Raises:
        RecipeError: there is none; the message names the nearest.
        ReuseError: it is there but cannot be used, and why.
    """
    from reuselib.adapter import Adapter

    return _find(kind, ADAPTER_GROUP, "adapter").load(Adapter)


def task(kind: str) -> type[Task]:
    """The task class of that kind; errors as for `adapter`."""
    from reuselib.task import Task

    return _find(kind, TASK_GROUP, "task").load(Task)


def adapters() -> dict[str, type[Adapter]]:
    """Every adapter that can be loaded, by kind. What cannot is left out; `adapter(kind)` says why."""
    from reuselib.adapter import Adapter

    return _load_all(ADAPTER_GROUP, Adapter)


def tasks() -> dict[str, type[Task]]:
    """Every task that can be loaded, by kind."""
    from reuselib.task import Task

    return _load_all(TASK_GROUP, Task)


def nearest(name: str, names: Collection[str]) -> str | None:
    """The name that was probably meant, if one is near enough."""
    found = difflib.get_close_matches(name.lower(), [*names], n=1, cutoff=0.6)
    return found[0] if found else None


def no_such(what: str, kind: str, kinds: Collection[str]) -> str:
    """One line: there is no `what` of that kind, the nearest, and all there are."""
    guess = nearest(kind, kinds)
    hint = f"did you mean '{guess}'? " if guess else ""
    return f"no {what} is called '{kind}'; {hint}There are: {', '.join(kinds)}"


def _find(kind: str, group: str, what: str) -> Entry:
    found = entries(group)
    if kind not in found:
        raise RecipeError([Problem("", "", no_such(what, kind, found))])
    return found[kind]


def _load_all(group: str, contract: type) -> dict[str, type]:
    loaded: dict[str, type] = {}
    for kind, entry in entries(group).items():
        try:
            loaded[kind] = entry.load(contract)
        except ReuseError:  # reported as soon as somebody uses it
            continue
    return loaded
