"""The command line: `reuselib run recipe.yaml`, and what belongs to it."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reuselib.errors import Interrupted, ReuseError
from reuselib.values.visible import visible_lines

if TYPE_CHECKING:
    from typer import Typer

    from reuselib.cli.processes import Call

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 2 usage or recipe, 3 preflight or run, 4 a gate failed, 5 integrity, 130 interrupted, 1 a bug.
    """
    # Where cores are shared, a thread that spins for long at a barrier takes the core from the one it waits for:
    # measured, training was 4.6 times slower beside two busy processes, and no slower alone. Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # DDP says of nearly every network that it could be told more about it
    if "WORLD_SIZE" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = (
        "--debug" in given
    )  # taken wherever it stands, since it is added after something went wrong
    given = [each for each in given if each != "--debug"]
    from reuselib.cli.processes import Call, after_the_first

    code = _ended(given, Call((*given, "--debug") if debug else tuple(given)), debug=debug)
    after_the_first(code)
    return code


def _ended(given: list[str], call: Call, *, debug: bool) -> int:
    """Carry out a command; say what went wrong, if anything did, and return its exit code."""
    from reuselib.cli import interruption
    from reuselib.cli.processes import speaks

    if not debug:
        # What libraries plan to change is for those who call them, not for who runs a recipe.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # torchao, which peft loads where it is installed, tells of GPU libraries that its CPU package lacks
        for name in ("torchao", "torch.utils._pytree"):
            logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with interruption.sigterm_as_ctrl_c():
            code = _invoke(given, call)
    except Interrupted as error:
        if speaks():
            _say(interruption.words(error, given))
        return INTERRUPTED
    except ReuseError as error:
        if debug:
            raise
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        _say(f"This is a bug in reuselib, not in what you did: {type(error).__name__}: {error}")
        _say("Please report it, with the output of the same command and --debug behind it.")
        return 1
    if code == INTERRUPTED and not call.told and speaks():
        _say(interruption.NOTHING_LOST if given[:1] == ["run"] else "interrupted")
    return code


def all_verbs() -> Typer:
    """The command line with all its verbs."""
    # each adds its own; help lists them in this order
    from reuselib.cli import run, verbs, evidence, publication, store  # noqa: F401, I001
    from reuselib.cli.application import app

    return app


def _invoke(arguments: Sequence[str], call: Call) -> int:
    from reuselib.cli.interruption import of

    try:
        all_verbs()(args=list(arguments), prog_name="reuselib", obj=call)
    except SystemExit as end:  # typer's way to return
        if (interrupted := of(end)) is not None:
            raise interrupted from None
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{visible_lines(text)}\n")  # names in it may be those of strangers
