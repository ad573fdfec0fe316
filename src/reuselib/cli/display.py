"""`reuselib show`: whatever it is, as text."""

from __future__ import annotations

import sys
from pathlib import Path

from reuselib import catalog
from reuselib.errors import SourceError
from reuselib.lineage.addressing import at_hand


def display(what: str) -> None:
    """Print a recipe with its defaults, the lineage of a model folder, a list, or one adapter or task.

    Raises:
        SourceError: it is none of these.
    """
    from reuselib.cli import listing

    lists = {"adapters": catalog.ADAPTER_GROUP, "tasks": catalog.TASK_GROUP}
    path = at_hand(what)
    if path.is_dir():
        _lineage(path)
    elif path.is_file():
        from reuselib.recipe import Recipe

        sys.stdout.write(Recipe.read(path).to_yaml())
    elif what in lists:
        listing.show(listing.rows(lists[what]))
    elif what in (kinds := catalog.entries(catalog.ADAPTER_GROUP)):
        listing.show_one(catalog.adapter(what))
    elif what in (tasks := catalog.entries(catalog.TASK_GROUP)):
        listing.show_one(catalog.task(what))
    else:
        guess = catalog.nearest(what, [*lists, *kinds, *tasks])
        raise SourceError(
            f"'{what}' is neither a file, nor a folder, nor the name of an adapter or task",
            expected="a recipe, a model folder, 'adapters', 'tasks', or one of their names",
            fix=f"did you mean '{guess}'?" if guess else "check the path",
        )


def _lineage(folder: Path) -> None:
    """Print how a model was made, step by step, from its own record."""
    from rich.console import Console

    from reuselib.cli.figures import told
    from reuselib.lineage.chain import read_ancestors, walk
    from reuselib.lineage.manifest import Manifest
    from reuselib.lineage.store import Store
    from reuselib.model.figures import read_figures
    from reuselib.recipe import Recipe

    manifest = Manifest.read(folder)
    recipe = Recipe.of(manifest, walk(manifest, read_ancestors(folder)).manifests)
    figures = read_figures(folder)
    console = Console(highlight=False)
    console.print(f"{manifest.name} ({manifest.relation})", style="bold", markup=False)
    console.print(f"dirHash {manifest.digests.dir_hash}")
    for line in told(figures):
        console.print(line, markup=False, soft_wrap=True)
    for failure in Store.default().verdicts.failures(manifest.derivation_id):
        console.print(f"gate failed: {failure}", markup=False, soft_wrap=True, style="red")
    console.print("made by this recipe:\n", style="dim")
    sys.stdout.write(recipe.to_yaml())
    console.print("\nas recorded; `reuselib verify` checks the bytes against it", style="dim")
