"""The JSON schema of a recipe, from the same classes that read it: for editors, and for checks without reuselib."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal, Union

from reuselib import catalog
from reuselib.adapter import Adapter, Json, as_json
from reuselib.errors import ReuseError
from reuselib.recipe.recipe import Recipe
from reuselib.task import Task
from reuselib.values.fields import field_types, is_required, keyed_by

SCALARS: dict[object, Json] = {
    bool: {"type": "boolean"}, int: {"type": "integer"}, float: {"type": "number"}, str: {"type": "string"},
    types.NoneType: {"type": "null"},
}  # fmt: skip


def schema(*, plugins: bool = True) -> dict[str, Json]:
    """The schema (JSON Schema 2020-12).

    Args:
        plugins: include the adapters and tasks of other packages that are installed here.
    """
    writer = _Writer({Adapter: _load(catalog.ADAPTER_GROUP, Adapter, plugins),
                      Task: _load(catalog.TASK_GROUP, Task, plugins)})  # fmt: skip
    root = writer.object(Recipe)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:reuselib:recipe:v1",
        "title": "reuselib recipe",
        **root,
        "$defs": dict(sorted(writer.definitions.items())),
    }


def _load(group: str, contract: type, plugins: bool) -> dict[str, type]:
    found: dict[str, type] = {}
    for kind, entry in catalog.entries(group).items():
        if entry.origin != catalog.OURS and not plugins:
            continue
        try:
            found[kind] = entry.load(contract)
        except ReuseError:  # reported when somebody uses it; the others are still described
            continue
    return found


@dataclass
class _Writer:
    """Collects the definitions of the classes that are met."""

    families: Mapping[type, Mapping[str, type]]
    definitions: dict[str, Json] = field(default_factory=dict)

    def type(self, hint: Any) -> dict[str, Json]:
        """The schema of one type."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in SCALARS:
            return dict(typing.cast("dict[str, Json]", SCALARS[hint]))
        if hint in self.families:
            return self.named(self.families[hint])
        if is_dataclass(hint):
            return self.reference(typing.cast("type", hint))
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.type(option) for option in arguments]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is tuple and Ellipsis not in arguments:
            items: list[Json] = [self.type(each) for each in arguments]
            count = len(arguments)
            return {"type": "array", "prefixItems": items, "minItems": count, "maxItems": count}
        if origin in (tuple, list, Sequence):
            return {"type": "array", "items": self.type(arguments[0])}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.type(arguments[1])}
        return {}

    def named(self, kinds: Mapping[str, type]) -> dict[str, Json]:
        """A one-key mapping `{kind: {fields}}`; the kind alone where no field is required."""
        bare: list[Json] = [
            kind for kind, cls in kinds.items() if not any(map(is_required, fields(cls)))
        ]
        inside: dict[str, Json] = {}
        for kind, cls in kinds.items():
            written = self.reference(cls)
            inside[kind] = {"anyOf": [written, {"type": "null"}]} if kind in bare else written
        single: dict[str, Json] = {"type": "object", "properties": inside, "additionalProperties": False,
                                   "minProperties": 1, "maxProperties": 1}  # fmt: skip
        return {"anyOf": [{"enum": bare}, single]} if bare else single

    def reference(self, cls: type) -> dict[str, Json]:
        """A reference to the definition of a dataclass, which is written if it is new."""
        name = getattr(cls, "kind", cls.__name__)
        if name not in self.definitions:
            self.definitions[name] = {}  # so that a class may hold itself
            self.definitions[name] = self.keyed(cls) if keyed_by(cls) else self.object(cls)
        return {"$ref": f"#/$defs/{name}"}

    def keyed(self, cls: type) -> dict[str, Json]:
        """A mapping with one key, which is the value of a field, to the other fields."""
        inside = self.object(cls)
        return {"description": inside.pop("description"), "type": "object", "additionalProperties": inside,
                "minProperties": 1, "maxProperties": 1}  # fmt: skip

    def object(self, cls: type) -> dict[str, Json]:
        """The schema of a dataclass, with its docstrings as descriptions."""
        hints, notes = field_types(cls), attribute_docs(cls)
        properties: dict[str, Json] = {}
        written = [each for each in fields(cls) if each.name != keyed_by(cls)]
        for each in written:
            properties[each.name] = self.type(hints[each.name])
            if each.name in notes:
                properties[each.name] |= {"description": notes[each.name]}  # type: ignore[operator]
            if not is_required(each):
                properties[each.name] |= {"default": as_json(_default(each))}  # type: ignore[operator]
        required: list[Json] = [each.name for each in written if is_required(each)]
        return {
            "description": first_paragraph(cls.__doc__),
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }


def _default(each: Field[Any]) -> object:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def first_paragraph(doc: str | None) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join(inspect.cleandoc(doc or "").partition("\n\n")[0].split())


def attribute_docs(cls: type) -> dict[str, str]:
    """The strings below a class's fields, by field name; inherited ones too."""
    notes: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
        except (
            OSError,
            TypeError,
            SyntaxError,
        ):  # no source at hand: a schema without descriptions
            continue
        body = typing.cast("ast.ClassDef", tree.body[0]).body
        for statement, below in itertools.pairwise(body):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    notes[name] = first_paragraph(text)
    return notes
