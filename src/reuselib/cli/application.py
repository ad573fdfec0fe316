"""The command line itself; rooms of verbs add theirs when they are imported, in the order in which help lists them."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Adapt pre-trained models, and get the evidence of how with them.",
    epilog="Exit codes: 0 done, 2 usage or recipe, 3 something is missing or a run failed, 4 a gate failed, 5 bytes "
    "do not match their record, 130 interrupted. Add --debug to any command for the traceback of a failure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # failures are for `main` to tell
    rich_markup_mode="rich",
)
