"""The verb that makes models: what it can be told, and how it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reuselib.cli import processes as several
from reuselib.cli.application import app
from reuselib.cli.options import AsJson, Changes, RecipeFile, Store, print_json

if TYPE_CHECKING:
    from reuselib.derivation.derive import Runtime
    from reuselib.derivation.execution import Execution
    from reuselib.derivation.plan import Plan
    from reuselib.errors import GateFailed
    from reuselib.recipe import Recipe

Output = Annotated[
    Path | None, typer.Option(help="Put a copy of the last child here.", show_default=False)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a model that is there already.")
]
Trackers = Annotated[
    list[str] | None,
    typer.Option(help="Such as tensorboard; may be repeated.", show_default=False),
]
KeepStates = Annotated[
    int,
    typer.Option(
        min=0,
        help="How many states of each training to keep in the store, for `reproduce --window`.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Train in so many processes of this machine: one a GPU, or sharing the cores of the CPU.",
        show_default=False,
    ),
]
Resume = Annotated[
    str,
    typer.Option(
        metavar="auto|no|PATH",
        help="Where an interrupted training goes on: its newest valid checkpoint, nowhere, or the one in a folder.",
    ),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(min=0, help="Longest time without a checkpoint; 0: only when interrupted."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what the store has already, and stop.")
]


@app.command()
def run(  # noqa: PLR0913 - one parameter for each option
    context: typer.Context,
    recipe: RecipeFile,
    changes: Changes = None,
    *,
    output: Output = None,
    overwrite: Overwrite = False,
    store: Store = None,
    tracker: Trackers = None,
    keep_states: KeepStates = 0,
    processes: Processes = None,
    resume: Resume = "auto",
    checkpoint_minutes: CheckpointMinutes = 5.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the model that a recipe describes, or find it in the store."""
    from reuselib.derivation.derive import Runtime
    from reuselib.recipe import Recipe

    told = Recipe.read(recipe, overrides=changes or ())
    if dry_run:
        _show_forecast(told, store, as_json=as_json)
        return
    plan = told.plan(store=store)
    several.launched(context.obj, plan, processes)
    runtime = Runtime(
        store=store,
        output=output,
        overwrite=overwrite,
        trackers=tuple(tracker or ()),
        keep_states=keep_states,
        resume=_resume_from(resume),
        checkpoint_seconds=60 * checkpoint_minutes or None,
    )
    execution, failure = _made(plan, runtime)
    if not execution.world.main:
        raise typer.Exit(failure.exit_code if failure is not None else 0)
    _show(execution, as_json=as_json)
    if failure is not None:
        raise failure


def _made(plan: Plan, runtime: Runtime) -> tuple[Execution, GateFailed | None]:
    """Carry a plan out; a gate that failed comes with it, since figures are worth seeing all the more then."""
    from reuselib.cli.progress import shown
    from reuselib.derivation.execution import hand_over, make
    from reuselib.errors import GateFailed

    with several.ending_once(), shown(quiet=not several.speaks()) as report:
        runtime = replace(runtime, report=report)
        execution = make(plan, runtime)
    try:
        with several.ending_once():
            return hand_over(execution, runtime), None
    except GateFailed as error:
        return replace(execution, verdicts=error.verdicts), error


def _show(execution: Execution, *, as_json: bool) -> None:
    from reuselib.cli import outcome

    if as_json:
        print_json(outcome.to_json(execution))
    else:
        outcome.show(execution)


def _show_forecast(recipe: Recipe, store: Path | None, *, as_json: bool) -> None:
    from reuselib.cli import forecast as printed
    from reuselib.derivation.forecast import forecast
    from reuselib.lineage.store import Store as Place

    steps = forecast(recipe.plan(store=replace(Place.default(store), quiet=True)))
    if as_json:
        print_json({"steps": [each.to_json() for each in steps]})
    else:
        printed.show(steps)


def _resume_from(text: str) -> Literal["auto", "no"] | Path:
    """What `--resume` says, as `Runtime.resume` has it."""
    if text == "auto" or text == "no":
        return text
    return Path(text)
