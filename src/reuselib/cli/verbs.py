"""The verbs that make and compare models: each a few lines over functions that anyone can call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuselib.cli.options import AsJson, Store, print_json, resume_from

if TYPE_CHECKING:
    from reuselib.recipe import Recipe

app = typer.Typer(
    help="Adapt pre-trained models, and get the evidence of how with them.",
    epilog="Exit codes: 0 done, 2 usage or recipe, 3 something is missing or a run failed, 4 a gate failed, 5 bytes "
    "do not match their record, 130 interrupted. Add --debug to any command for the traceback of a failure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # failures are for `main` to tell
    rich_markup_mode="rich",
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Changes to the recipe, such as 'seed=3' or 'steps[0].lora.fit.epochs=1' (in quotes).",
    ),
]


@app.command()
def run(  # noqa: PLR0913 - one parameter for each option
    context: typer.Context,
    recipe: RecipeFile,
    changes: Changes = None,
    *,
    output: Annotated[
        Path | None, typer.Option(help="Put a copy of the last child here.", show_default=False)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that is there already.")
    ] = False,
    store: Store = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(help="Such as tensorboard; may be repeated.", show_default=False),
    ] = None,
    keep_states: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many states of each training to keep in the store, for `reproduce --window`.",
        ),
    ] = 0,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train in so many processes of this machine: one a GPU, or sharing the cores of the CPU.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            metavar="auto|no|PATH",
            help="Where an interrupted training goes on: its newest valid checkpoint, nowhere, or the one in a folder.",
        ),
    ] = "auto",
    checkpoint_minutes: Annotated[
        float,
        typer.Option(min=0, help="Longest time without a checkpoint; 0: only when interrupted."),
    ] = 5.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the store has already, and stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the model that a recipe describes, or find it in the store."""
    from reuselib.cli import outcome
    from reuselib.cli import processes as several
    from reuselib.cli.progress import shown
    from reuselib.derivation.derive import Runtime
    from reuselib.derivation.execution import hand_over, make
    from reuselib.errors import GateFailed
    from reuselib.recipe import Recipe

    if dry_run:
        _show_forecast(Recipe.read(recipe, overrides=changes or ()), store, as_json=as_json)
        return
    plan = Recipe.read(recipe, overrides=changes or ()).plan(store=store)
    several.launched(context.obj, plan, processes)
    with several.ending_once(), shown(quiet=not several.speaks()) as report:
        runtime = Runtime(
            store=store,
            output=output,
            overwrite=overwrite,
            trackers=tuple(tracker or ()),
            report=report,
            keep_states=keep_states,
            resume=resume_from(resume),
            checkpoint_seconds=60 * checkpoint_minutes or None,
        )
        execution = make(plan, runtime)
    failure: GateFailed | None = None
    try:
        with several.ending_once():
            execution = hand_over(execution, runtime)
    except GateFailed as error:  # its figures are worth seeing all the more
        failure, execution = error, replace(execution, verdicts=error.verdicts)
    if not execution.world.main:
        raise typer.Exit(failure.exit_code if failure is not None else 0)
    if as_json:
        print_json(outcome.to_json(execution))
    else:
        outcome.show(execution)
    if failure is not None:
        raise failure


def _show_forecast(recipe: Recipe, store: Path | None, *, as_json: bool) -> None:
    from reuselib.cli import forecast as printed
    from reuselib.derivation.forecast import forecast
    from reuselib.lineage.store import Store as Place

    steps = forecast(recipe.plan(store=replace(Place.default(store), quiet=True)))
    if as_json:
        print_json({"steps": [each.to_json() for each in steps]})
    else:
        printed.show(steps)


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
