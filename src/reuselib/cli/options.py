"""Arguments and options that several verbs share, and how they print JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from reuselib.adapter import Json
from reuselib.values.visible import visible_json

Store = Annotated[
    Path | None,
    typer.Option(
        help="Folder of finished children; else REUSELIB_STORE, else your cache folder.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A model folder.")]
Parents = Annotated[
    list[Path] | None,
    typer.Option(
        "--parents",
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


def resume_from(text: str) -> Literal["auto", "no"] | Path:
    """What `--resume` says, as `Runtime.resume` has it."""
    if text == "auto" or text == "no":
        return text
    return Path(text)
