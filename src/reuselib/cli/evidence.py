"""The verbs that ask what a model folder is: each a few lines over functions that anyone can call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from reuselib.cli.application import app
from reuselib.cli.options import (
    AsJson,
    Folder,
    Folders,
    Parents,
    PolicyFile,
    Rows,
    Store,
    found_at,
    print_json,
)


@app.command()
def verify(
    folder: Folder,
    *,
    policy: PolicyFile = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="PEM file of a public key that must have signed it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a model folder against its manifest: every file, every tensor. Needs no network and runs no code of it."""
    from reuselib.cli.verdict import show_report
    from reuselib.errors import IntegrityError, ReuseError
    from reuselib.lineage.policy import demands
    from reuselib.lineage.verify import verify

    report = verify(folder, policy=demands(policy, keys=key or ()))
    if as_json:
        print_json(report.to_json())
    else:
        show_report(report, folder)
    if report.is_unreadable:
        raise typer.Exit(ReuseError.exit_code)
    if not report.ok:
        raise typer.Exit(IntegrityError.exit_code)


@app.command()
def prove(
    folder: Folder,
    *,
    parents: Parents = None,
    store: Store = None,
    require: Annotated[
        Literal["proven", "recorded"] | None,
        typer.Option(help="What every step must reach, or exit code 5.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every step that led to a model against its parents' weights. Exit code 5: a claim does not hold."""
    from reuselib.cli.proof import show_proof
    from reuselib.errors import IntegrityError
    from reuselib.evidence.prove import prove
    from reuselib.lineage.tiers import TIERS

    proof = prove(folder, parents=parents or (), store=store)
    if as_json:
        print_json(proof.to_json())
    else:
        show_proof(proof)
    lacking = require is not None and TIERS.index(proof.tier) > TIERS.index(require)
    if lacking:
        typer.echo(f"{proof.name} is {proof.tier}, not {require}", err=True)
    if lacking or not proof.ok:
        raise typer.Exit(IntegrityError.exit_code)


@app.command()
def trace(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="PLACE", help="A model folder; with --children, a store.", callback=found_at
        ),
    ],
    *,
    form: Annotated[
        Literal["tree", "json", "dot", "mermaid", "prov"],
        typer.Option("--format", help="How to print it."),
    ] = "tree",
    children: Annotated[
        bool,
        typer.Option("--children", help="All models in a store, under what they were made from."),
    ] = False,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Draw where a model came from, one line a model, from its own folder: no weights are read, no parent is needed."""
    from reuselib.cli.tree import show_trace
    from reuselib.forensics.trace import trace, trace_store
    from reuselib.lineage.policy import demands

    if children and policy is not None:
        raise typer.BadParameter(
            "--policy is about one model folder; with --children no file of a store is verified"
        )
    found = trace_store(place) if children else trace(place, policy=demands(policy))
    if as_json or form == "json":
        print_json(found.to_json())
    elif form == "tree":
        show_trace(found)
    else:
        sys.stdout.write(found.drawn(form))


@app.command()
def diff(
    one: Annotated[Path, typer.Argument(metavar="A", help="A model folder.", callback=found_at)],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.", callback=found_at)],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what two models have in common and where they differ: files, tensors, recipe, figures. Needs no manifest."""
    from reuselib.cli.differences import show_difference
    from reuselib.forensics.diff import diff

    difference = diff(one, other)
    if as_json:
        print_json(difference.to_json())
    else:
        show_difference(difference)


@app.command()
def kin(
    models: Folders,
    *,
    as_json: AsJson = False,
) -> None:
    """Guess from weights alone which model was made from which. A guess is marked as inferred, never more."""
    from reuselib.cli.differences import show_kinship
    from reuselib.forensics.kin import kin

    kinship = kin(models)
    if as_json:
        print_json(kinship.to_json())
    else:
        show_kinship(kinship)


@app.command()
def reproduce(  # noqa: PLR0913 - one parameter for each option
    folder: Folder,
    *,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Only this many steps of the training, held against the trail that was recorded.",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        Literal["first", "last", "random"] | None,
        typer.Option(help="Which steps these are; default: first.", show_default=False),
    ] = None,
    data: Rows = None,
    parents: Parents = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Make a model's last step again: bit-equal, within tolerance, metric-equal, or different (exit code 5)."""
    from reuselib.cli.progress import shown
    from reuselib.cli.replay import show_reproduction
    from reuselib.errors import IntegrityError, ReuseError, TrainingError
    from reuselib.evidence.reproduce import Window, reproduce

    if steps is None and window is not None:
        raise TrainingError(
            f"--window {window} says which steps, but not how many",
            expected="--steps with it",
            fix="add `--steps 20`, or leave out --window to do the whole step again",
        )
    part = Window(steps, window or "first") if steps is not None else None
    with shown() as report:
        found = reproduce(
            folder, window=part, data=data, parents=parents or (), store=store, report=report
        )
    if as_json:
        print_json(found.to_json())
    else:
        show_reproduction(found)
    if found.verdict == "differs":
        raise typer.Exit(IntegrityError.exit_code)
    if not found.ok:  # nothing contradicts the record, but nothing was shown either
        raise typer.Exit(ReuseError.exit_code)


@app.command()
def audit(  # noqa: PLR0913 - one parameter for each option
    folder: Folder,
    *,
    policy: PolicyFile = None,
    data: Rows = None,
    parents: Parents = None,
    store: Store = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the findings here too, as JSON, over what is there.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify, prove, measure claims again, look at licences, formats, card and gaps. Exit code 5: not acceptable."""
    from reuselib.cli.findings import show_audit
    from reuselib.cli.progress import shown
    from reuselib.errors import IntegrityError
    from reuselib.evidence.audit import audit
    from reuselib.evidence.audited import refuse_unwritable
    from reuselib.lineage.policy import demands

    if output is not None:
        refuse_unwritable(output)
    with shown() as report:
        found = audit(
            folder,
            policy=demands(policy),
            data=data,
            parents=parents or (),
            store=store,
            report=report,
        )
    if as_json:
        print_json(found.to_json())
    else:
        show_audit(found)
    if output is not None:
        found.write(output)
    if not found.ok:
        raise typer.Exit(IntegrityError.exit_code)
