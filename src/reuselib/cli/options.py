"""Arguments and options that several verbs share, and how they print JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from reuselib.adapter import Json
from reuselib.values.visible import visible_json


def found_at(context: typer.Context, value: Path) -> Path:
    """Where the model is that an argument names."""
    from reuselib.lineage.addressing import at_hand

    return at_hand(value, context.params.get("store"))


def all_found_at(context: typer.Context, value: list[Path] | None) -> list[Path] | None:
    """The same for several."""
    return None if value is None else [found_at(context, each) for each in value]


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Changes to the recipe, such as 'seed=3' or 'steps[0].lora.fit.epochs=1' (in quotes).",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        is_eager=True,  # known before folders are looked for in it
        help="Folder of finished children; else REUSELIB_STORE, else your cache folder.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Folder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="A model folder, or `store:` and at least 8 digits of a child.",
        callback=found_at,
    ),
]
Folders = Annotated[
    list[Path],
    typer.Argument(metavar="MODELS", help="Folders of two models or more.", callback=all_found_at),
]
Parents = Annotated[
    list[Path] | None,
    typer.Option(
        "--parents",
        callback=all_found_at,
        help="A folder of a parent or of any ancestor, if the store does not know it; may be repeated.",
        show_default=False,
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="What you demand: a YAML file of yours.", show_default=False),
]
Rows = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Where the rows are, if not where the manifest says: `./rows.jsonl`, a hub id, `sample:...`.",
        show_default=False,
    ),
]


def print_json(value: Json) -> None:
    """On standard output, for programs."""
    sys.stdout.write(visible_json(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")
