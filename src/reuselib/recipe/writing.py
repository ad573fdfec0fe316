"""From a `Recipe` to plain values and YAML."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from reuselib.adapter import Adapter, Json, as_json
from reuselib.errors import Problem, RecipeError
from reuselib.task import Task
from reuselib.values.fields import keyed_by
from reuselib.values.scalars import needs_quotes

if TYPE_CHECKING:
    from reuselib.recipe.recipe import Recipe


def to_dict(recipe: Recipe) -> dict[str, Json]:
    """Plain JSON values; adapters and tasks as `{kind: {fields}}`.

    Raises:
        RecipeError: a field holds something that only Python can say, such as a function.
    """
    values: dict[str, Json] = {}
    problems: list[Problem] = []
    for each in fields(recipe):
        value = getattr(recipe, each.name)
        try:
            if isinstance(value, tuple):
                values[each.name] = [_plain(item) for item in value]
            else:
                values[each.name] = _plain(value)
        except TypeError as error:
            problems.append(
                Problem("", each.name, f"{error}; such a recipe can be run but not written")
            )
    if problems:
        raise RecipeError(problems)
    return values


def _plain(value: object) -> Json:
    if key := keyed_by(type(value)):
        fields_ = as_json(value)
        assert isinstance(fields_, dict)
        name = str(fields_.pop(key))
        return {name: {field: each for field, each in fields_.items() if each is not None}}
    # Not `describe`, which may tell a record what no recipe can say, such as the name of a function.
    return {value.kind: as_json(value)} if isinstance(value, Adapter | Task) else as_json(value)


def to_yaml(recipe: Recipe) -> str:
    """YAML that reads back as an equal recipe, here and with any YAML 1.1 or 1.2 parser."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """PyYAML's, with quotes also where YAML 1.2 would see a number."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def string(dumper: Dumper, text: str) -> yaml.Node:
        style = "'" if needs_quotes(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, string)
    return yaml.dump(
        to_dict(recipe),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100,
    )
