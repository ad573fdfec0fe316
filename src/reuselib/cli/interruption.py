"""How a command ends that was interrupted: by Ctrl-C or SIGTERM, with the same words and the same exit code."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from reuselib.errors import Interrupted

NOTHING_LOST = """interrupted; nothing was lost: the store holds whole children only.
Run the same command again, and it goes on after the last one."""
"""Said of `run`, the one verb that leaves something to go on with."""


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM raises KeyboardInterrupt, so that what is half-made is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may decide about signals
        return

    def end(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def of(error: BaseException | None) -> Interrupted | None:
    """The interrupted training behind what typer made of it, if there is one."""
    while error is not None:
        if isinstance(error, Interrupted):
            return error
        error = error.__cause__ or error.__context__
    return None


def words(error: Interrupted, arguments: Sequence[str]) -> str:
    """What happened to a training, and the command that goes on with it."""
    command = again(arguments)
    kept = error.folder is not None
    told = f"{error}.\nGo on with:" if kept else f"{error}.\nThe newest checkpoint before it stays:"
    return f"{told}\n  {command}"


def again(arguments: Sequence[str]) -> str:
    """The command as it is to be typed: without `--resume`, since the newest checkpoint is the right one."""
    from reuselib.cli.outcome import program

    if os.environ.get("WORLD_SIZE") and "--processes" not in " ".join(arguments):
        return "the same command, with its launcher"
    left, skipping = list[str](), False
    for each in arguments:
        if skipping or each == "--resume":
            skipping = not skipping
        elif not each.startswith("--resume="):
            left.append(each)
    return f"{program()} {shlex.join(left)}"
