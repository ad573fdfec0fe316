"""Rewrite what the pages take from the code: `python docs/generate.py`; with `--check`, only say what is stale.

A page holds a pair of markers, and what lies between them is written here:

    <!-- generated: fields lora -->
    <!-- end -->
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import reuselib
from reuselib import catalog
from reuselib.adapter import Adapter, as_json
from reuselib.lineage.schema import manifest_schema
from reuselib.model.figures import Figures
from reuselib.recipe.schema import attribute_docs, first_paragraph
from reuselib.task import Task
from reuselib.values.fields import field_types

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "reuselib"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MARKED = re.compile(r"(<!-- generated: ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

VALUES = (
    "Recipe",
    "ModelRef",
    "Data",
    "Gate",
    "FitPlan",
    "Optimizer",
    "Schedule",
    "EarlyStopping",
    "Losses",
    "Calibration",
)
"""Public dataclasses that a recipe is made of, each with a section in `reference/recipe.md`."""
ROOMS = {
    "adapters": "The changes: one file, one family",
    "derivation": "`derive`: plan, run, measure, record",
    "evidence": "Checks that need an adapter's knowledge",
    "measure": "Costs, and claims about tensors",
    "training": "The one training loop; everything that touches accelerate",
}
"""What a room is for, where its `__init__.py` does not say."""
WORDS = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    types.NoneType: "null",
}
SECTIONS = ("externalParameters", "internalParameters", "runDetails")
"""Objects of the manifest that have a table of their own."""
SCHEMA_WORDS = {"string": "text", "integer": "integer", "object": "mapping", "": "anything"}


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare; the exit code is 1 if something is stale."""
    checking = arguments == ["--check"]
    if arguments and not checking:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    stale = []
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        if (new := renewed(page, old)) == old:
            continue
        stale.append(page)
        if not checking:
            page.write_text(new, encoding="utf-8")
    for page in stale:
        done = "is stale: run `python docs/generate.py`" if checking else "was rewritten"
        sys.stdout.write(f"{page.relative_to(ROOT)} {done}\n")
    return int(checking and bool(stale))


def renewed(page: Path, text: str) -> str:
    """The text of a page with everything between markers written anew."""

    def write(match: re.Match[str]) -> str:
        name, *rest = match[2].split()
        return "\n".join([match[1], *WRITERS[name](page, *rest), "", match[3]])

    return MARKED.sub(write, text)


# What can stand between markers.


def field_table(page: Path, name: str) -> Iterator[str]:
    """The fields of an adapter or task (by kind), or of one of `VALUES`."""
    cls = _class(name)
    yield from ("| key | takes | default | meaning |", "|---|---|---|---|")
    hints, notes = field_types(cls), attribute_docs(cls)
    for each in (field for field in dataclasses.fields(cls) if field.init):
        cells = (
            f"`{each.name}`",
            _takes(hints[each.name], page),
            _default(each),
            notes.get(each.name, ""),
        )
        yield _row(*cells)


def sections(page: Path, group: str) -> Iterator[str]:
    """A section for each task, or for each of `VALUES`: what it is, and its keys."""
    names = [*catalog.TASKS] if group == "tasks" else VALUES
    for index, name in enumerate(names):
        # the writer of the whole puts a line break before and behind
        yield f"{'' if index == 0 else chr(10)}### {name}\n\n{first_paragraph(_class(name).__doc__)}\n"
        yield from field_table(page, name)


def adapter_table(page: Path) -> Iterator[str]:
    """Every adapter of ours, with its card."""
    yield from ("| step | what it does | relation | child holds |", "|---|---|---|---|")
    for kind in catalog.ADAPTERS:
        cls: type[Adapter] = catalog.adapter(kind)
        card = os.path.relpath(ROOT / "docs" / "adapters" / f"{kind}.md", page.parent)
        holds = "every weight" if cls.whole else "what it added; needs its parent's weights"
        yield _row(f"[`{kind}`]({card})", first_paragraph(cls.__doc__), f"`{cls.relation}`", holds)


def verbs(page: Path) -> Iterator[str]:
    """Each verb of the command line with its arguments and options."""
    import typer

    from reuselib.cli import all_verbs

    commands: dict[str, Any] = typer.main.get_command(all_verbs()).commands  # type: ignore[attr-defined]
    for index, (name, command) in enumerate(commands.items()):
        given = " ".join(
            each.metavar for each in command.params if each.param_type_name == "argument"
        )
        yield (
            f"{'' if index == 0 else chr(10)}### `reuselib {name} {given}".rstrip()
            + f"`\n\n{command.help}\n"
        )
        yield from ("| what | meaning |", "|---|---|")
        for each in command.params:
            shown = each.metavar if each.param_type_name == "argument" else each.opts[0]
            yield _row(f"`{shown}`", each.help or "")


def public_names(page: Path) -> Iterator[str]:
    """Everything in `reuselib.__all__`."""
    yield from ("| name | what it is |", "|---|---|")
    for name in sorted(reuselib.__all__, key=str.lower):
        yield _row(f"`{name}`", first_paragraph(getattr(reuselib, name).__doc__))


def error_table(page: Path) -> Iterator[str]:
    """Every error with its exit code."""
    from reuselib import errors

    yield from ("| error | exit code | when |", "|---|---|---|")
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, errors.ReuseError):
            yield _row(f"`{name}`", str(cls.exit_code), first_paragraph(cls.__doc__))
    # no failure, and therefore of another family
    yield _row("`Interrupted`", "130", first_paragraph(errors.Interrupted.__doc__))


def laws(page: Path) -> Iterator[str]:
    """The laws by name, as `check_adapter` checks them."""
    from reuselib.testing import LAWS

    yield from ("| | law | what is checked |", "|---|---|---|")
    for index, (name, check) in enumerate(LAWS.items(), 1):
        yield _row(str(index), f"`{name}`", first_paragraph(check.__doc__))


def tree(page: Path) -> Iterator[str]:
    """The source tree: every file with the first sentence of what it says about itself."""
    yield from ("```", "src/reuselib/")
    for path in sorted(SOURCE.rglob("*"), key=_in_rooms):
        inside = path.relative_to(SOURCE)
        indent = "  " * len(inside.parts)
        if path.is_dir() and (path / "__init__.py").exists():
            yield f"{indent}{inside.name + '/':<26}{_about(path / '__init__.py')}".rstrip()
        elif path.suffix == ".py" and (path.name != "__init__.py" or path.parent == SOURCE):
            yield f"{indent}{inside.name:<26}{_about(path)}".rstrip()
    yield "```"


def manifest(page: Path, name: str = "") -> Iterator[str]:
    """The fields of the manifest down to `SECTIONS`, or of one of these or of the schema's other objects."""
    whole: Any = manifest_schema()
    known = {"": whole, **whole["$defs"], **_sections_of(whole)}
    yield from ("| field | takes | there | meaning |", "|---|---|---|---|")
    for path, part, needed in _fields_of(known[name], ""):
        target = whole["$defs"].get(part.get("$ref", "").rpartition("/")[2], {})
        meaning = part.get("description", "") or target.get("description", "")
        yield _row(
            f"`{path}`", _schema_type(path, part), "always" if needed else "if told", meaning
        )


def _sections_of(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in part.get("properties", {}).items():
        found |= ({name: each} if name in SECTIONS else {}) | _sections_of(each)
    return found


def _fields_of(part: Any, inside: str) -> Iterator[tuple[str, Any, bool]]:
    for name, each in part["properties"].items():
        yield f"{inside}{name}", each, name in part.get("required", ())
        if "properties" in each and name not in SECTIONS:
            yield from _fields_of(each, f"{inside}{name}.")
        elif "properties" in each.get("items", {}):
            yield from _fields_of(each["items"], f"{inside}{name}[].")


def _schema_type(path: str, part: Any) -> str:
    name = part.get("$ref", "").rpartition("/")[2] or path.rpartition(".")[2]
    if "$ref" in part or name in SECTIONS:
        return f"[{name}](#{name.lower()})"
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return " or ".join(f"`{each}`" for each in part["enum"])
    if part.get("type") == "array":
        return f"list of {_schema_type('', part.get('items', {}))}"
    return SCHEMA_WORDS[part.get("type", "")]


def parameters(page: Path, kind: str) -> Iterator[str]:
    """Every key that `externalParameters.recipe` holds for an adapter, those of nested values too."""
    yield from ("| key | takes | default | meaning |", "|---|---|---|---|")
    yield from _parameters(page, _class(kind), "")


def _parameters(page: Path, cls: type, inside: str) -> Iterator[str]:
    hints, notes = field_types(cls), attribute_docs(cls)
    for each in dataclasses.fields(cls):
        hint, note = hints[each.name], notes.get(each.name, "")
        yield _row(f"`{inside}{each.name}`", _takes(hint, page), _default(each), note)
        nested = [part for part in _within(hint) if dataclasses.is_dataclass(part)]
        listed = "[]" if typing.get_origin(hint) is tuple else ""
        for part in nested:
            yield from _parameters(page, part, f"{inside}{each.name}{listed}.")  # type: ignore[arg-type]


def _within(hint: Any) -> Iterator[Any]:
    arguments = typing.get_args(hint)
    yield from (each for part in arguments for each in _within(part)) if arguments else [hint]


def relations(page: Path) -> Iterator[str]:
    """What each adapter records itself as, and the roles of the other models that it may work with."""
    yield from ("| adapter | `relation` | roles among `inputs` |", "|---|---|---|")
    for kind in catalog.ADAPTERS:
        cls: type[Adapter] = catalog.adapter(kind)
        others = dict.fromkeys(cls.roles.values())
        if isinstance(vars(cls).get("uses_origin"), property):
            others["teacher"] = None
        named = ", ".join(f"`{role}`" for role in ("base", *others))
        yield _row(f"[`{kind}`](#{kind})", f"`{cls.relation}`", named)


def figures(page: Path) -> Iterator[str]:
    """The fields of `metrics.json`."""
    yield from ("| key | meaning |", "|---|---|")
    notes = attribute_docs(Figures)
    for each in dataclasses.fields(Figures):
        yield _row(f"`{each.name}`", notes[each.name])


WRITERS: dict[str, Callable[..., Iterator[str]]] = {
    "manifest": manifest,
    "parameters": parameters,
    "relations": relations,
    "figures": figures,
    "fields": field_table,
    "sections": sections,
    "adapters": adapter_table,
    "verbs": verbs,
    "names": public_names,
    "errors": error_table,
    "laws": laws,
    "tree": tree,
}


def _class(name: str) -> type:
    if name in catalog.ADAPTERS:
        return catalog.adapter(name)
    return catalog.task(name) if name in catalog.TASKS else getattr(reuselib, name)


def _takes(hint: Any, page: Path) -> str:
    """A type in words, with links to what has keys of its own."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in WORDS:
        return WORDS[hint]
    if hint in (Adapter, Task):
        return f"one {hint.__name__.lower()}"
    if origin in (typing.Union, types.UnionType):
        return (
            ", ".join(_takes(each, page) for each in arguments[:-1])
            + f" or {_takes(arguments[-1], page)}"
        )
    if origin is typing.Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"list of {len(arguments)}: {', '.join(_takes(each, page) for each in arguments)}"
    if origin is tuple:
        return f"list of {_takes(arguments[0], page)}"
    if origin is Mapping:
        return f"mapping of {_takes(arguments[0], page)} to {_takes(arguments[1], page)}"
    if dataclasses.is_dataclass(hint):
        target = os.path.relpath(ROOT / "docs" / "reference" / "recipe.md", page.parent)
        place = "" if page.name == "recipe.md" else target
        return f"[{hint.__name__}]({place}#{hint.__name__.lower()})"
    return str(hint)


def _default(each: dataclasses.Field[Any]) -> str:
    if each.default is not dataclasses.MISSING:
        default = each.default
    elif each.default_factory is not dataclasses.MISSING:
        default = each.default_factory()
    else:
        return "required"
    return (
        "its defaults" if dataclasses.is_dataclass(default) else f"`{json.dumps(as_json(default))}`"
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _in_rooms(path: Path) -> tuple[Any, ...]:
    """Files before folders, at every depth."""
    parts = path.relative_to(SOURCE).parts
    is_file = [(index < len(parts) - 1 or path.is_dir(), part) for index, part in enumerate(parts)]
    return tuple(is_file)


def _about(path: Path) -> str:
    doc = first_paragraph(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))
    return re.split(r"(?<=[.?])\s", doc)[0].rstrip(".") or ROOMS.get(path.parent.name, "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
