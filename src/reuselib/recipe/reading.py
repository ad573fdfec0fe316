"""From a recipe file to a `Recipe`, with all problems at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reuselib import catalog
from reuselib.adapter import Adapter
from reuselib.errors import Problem, RecipeError
from reuselib.recipe.overrides import override
from reuselib.recipe.recipe import Recipe
from reuselib.values.binding import FAILED, Binder
from reuselib.values.document import Document, parse
from reuselib.values.named import families
from reuselib.values.wording import show

EXAMPLE = "base, task, data, steps, gates and seed (`reuselib schema` describes them)"


def read(
    path: str | Path, *, overrides: Sequence[str] = (), adapters: Sequence[type[Adapter]] = ()
) -> Recipe:
    """Read a recipe file; see `Recipe.read`."""
    document = parse(_text(Path(path), str(path)), str(path))
    if overrides:
        _require_mapping(document)
        document = override(document, overrides)
    return build(document, adapters=adapters)


def build(document: Document, *, adapters: Sequence[type[Adapter]] = ()) -> Recipe:
    """The recipe that plain values stand for.

    Raises:
        RecipeError: with every problem of the document, in the order of its lines.
    """
    _require_mapping(document)
    binder = Binder(document, families(adapters))
    recipe = binder.bind(Recipe, document.value, ())
    problems = [*document.problems, *binder.problems]
    if problems or recipe is FAILED:
        raise RecipeError(sorted(problems, key=_position))
    return recipe


def _text(path: Path, name: str) -> str:
    """The file's text, or a problem that says why there is none."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        message = f"there is no such file.{_neighbours(path)}"
    except IsADirectoryError:
        message = f"is a folder; a recipe is a YAML file.{_neighbours(path / '*')}"
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}); save it as UTF-8"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    raise RecipeError([Problem(name, "", message)])


def _neighbours(path: Path) -> str:
    """Which recipe was probably meant."""
    found = {each.stem: each.name for each in sorted(path.parent.glob("*.y*ml"))[:50]}
    if guess := catalog.nearest(path.stem, found):
        return f" Did you mean '{path.parent / found[guess]}'?"
    return f" In '{path.parent}' there are: {', '.join([*found.values()][:8])}" if found else ""


def _require_mapping(document: Document) -> None:
    if isinstance(document.value, dict):
        return
    got = "is empty" if document.value is None else f"holds {show(document.value)}"
    message = f"{got}; expected a mapping with the keys {EXAMPLE}"
    raise RecipeError([*document.problems, Problem(document.where(()), "", message)])


def _position(problem: Problem) -> tuple[str, int]:
    """Problems are listed in the order of the file; those of overrides come with them, by argument."""
    name, _, line = problem.where.rpartition(":")
    return (name, int(line)) if line.isdigit() else (problem.where, 0)
