"""The verbs about recipes and models at hand: each a few lines over functions that anyone can call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reuselib.cli.application import app
from reuselib.cli.options import AsJson, Changes, RecipeFile, Store, print_json


@app.command()
def check(
    recipe: RecipeFile,
    changes: Changes = None,
    *,
    without_weights: Annotated[
        bool,
        typer.Option(
            "--without-weights",
            help="Only estimate memory and disk, from configuration and headers: for models that do not fit here.",
        ),
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Estimate for so many processes.")] = 1,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Try a recipe without training: find everything it names, take one real step, estimate time and memory."""
    from reuselib.cli import estimate
    from reuselib.cli.progress import shown
    from reuselib.derivation.budget import estimate as estimate_budget
    from reuselib.derivation.rehearsal import rehearse
    from reuselib.recipe import Recipe

    plan = Recipe.read(recipe, overrides=changes or ()).plan(
        store=store, weights=not without_weights
    )
    with shown() as report:
        budget = estimate_budget(plan, num_processes=processes)
        rehearsing = not without_weights and not budget.objections
        rehearsals = rehearse(plan, report) if rehearsing else ()
    if as_json:
        print_json(estimate.to_json(plan, budget, rehearsals))
    else:
        estimate.show(plan, budget, rehearsals)
    budget.require()


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A recipe file, a model folder, 'adapters', 'tasks', or one of them.",
        ),
    ],
) -> None:
    """Print a recipe with every default, where a model comes from, or what an adapter can be told."""
    from reuselib.cli.display import display

    display(what)


@app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS", help="Two or more: folders, hub ids, `package:...` or `store:...`."
        ),
    ],
    *,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Says task and rows; else those that the first model with a record was measured on.",
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Measure models on the same test rows: metrics with intervals, size, time, and drift from the first one."""
    from reuselib.cli import comparison
    from reuselib.cli.progress import shown
    from reuselib.derivation.comparing import compare_models
    from reuselib.recipe import Recipe

    if len(models) < 2:
        raise typer.BadParameter("expected two models or more")
    told = Recipe.read(recipe) if recipe is not None else None
    with shown() as report:
        comparing = compare_models(models, recipe=told, store=store, report=report)
    if as_json:
        print_json(comparing.to_json())
    else:
        comparison.show(comparing)


@app.command()
def schema(
    *,
    ours: Annotated[
        bool, typer.Option("--ours", help="Leave out what other installed packages add.")
    ] = False,
    manifest: Annotated[
        bool, typer.Option("--manifest", help="The schema of lineage manifests instead.")
    ] = False,
) -> None:
    """Print the JSON schema of recipes, or of manifests, for editors and other tools."""
    if manifest and ours:
        raise typer.BadParameter(
            "--ours is about recipes: what packages add is no part of a manifest"
        )
    if manifest:
        from reuselib.lineage.schema import manifest_schema

        print_json(manifest_schema())
        return
    from reuselib.recipe.schema import schema

    print_json(schema(plugins=not ours))


@app.command()
def adapters(*, as_json: AsJson = False) -> None:
    """List the adapters that recipes can name here, with those of other installed packages."""
    from reuselib import catalog
    from reuselib.cli import listing

    found = listing.rows(catalog.ADAPTER_GROUP)
    if as_json:
        print_json([row.to_json() for row in found])
    else:
        listing.show(found)
