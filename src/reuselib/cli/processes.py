"""`--processes`: a command that starts itself several times, and speaks once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from reuselib.errors import PeerFailed, TrainingError
from reuselib.training.launch import PEER_FAILED, PROCESSES, launch
from reuselib.training.threads import num_cores

if TYPE_CHECKING:
    from reuselib.derivation.plan import Plan

_COUNT = "import torch; print(torch.accelerator.device_count() if torch.accelerator.is_available() else 0)"


@dataclass
class Call:
    """A call of the command line."""

    arguments: tuple[str, ...]
    """All of them, as given."""
    told: bool = False
    """Whether it was said already how it ended."""


def launched(call: Call, plan: Plan, num_processes: int | None) -> None:
    """Start the call again in several processes if that is asked for and there is something to do, and end with them.

    Raises:
        typer.BadParameter: another launcher started this process.
        TrainingError: there are fewer accelerators than processes.
        typer.Exit: the processes have ended.
    """
    if num_processes is None or _is_one_of(num_processes) or num_processes == 1:
        return
    if len(plan.finished()) == len(plan.steps):
        return
    num_devices = 0 if _asked_for_cpu() else count_accelerators()
    if 0 < num_devices < num_processes:
        raise TrainingError(
            f"--processes is {num_processes}, but this machine has {num_devices} accelerators",
            expected="at most one process each",
            fix=f"say --processes {num_devices}, or set ACCELERATE_USE_CPU=true to train on the CPU",
        )
    if not num_devices and num_processes > num_cores():
        typer.echo(
            f"{num_processes} processes share {num_cores()} cores: more than one a core is slower",
            err=True,
        )
    command = [sys.executable, "-m", "reuselib", *call.arguments]
    code = launch(command, num_processes, cpu=not num_devices)
    call.told = True
    raise typer.Exit(code)


def speaks() -> bool:
    """Whether this process is the one of several that prints."""
    return not int(os.environ.get("RANK") or 0)


@contextmanager
def ending_once() -> Iterator[None]:
    """End without a word if another process fails within, since that one says why."""
    try:
        yield
    except PeerFailed as error:
        if PROCESSES in os.environ:
            raise typer.Exit(PEER_FAILED) from error
        if error.told:
            raise typer.Exit(error.code) from error
        raise


def after_the_first(code: int) -> None:
    """Before this process ends with that code: see to it that the first one's words are out.

    torchrun and accelerate end all processes as soon as one fails, and the first is the one that says what happened.
    """
    if not code or PROCESSES in os.environ or int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the code is settled, whoever ends first
    from reuselib.training.world import await_first_words

    await_first_words(first=speaks())


def count_accelerators() -> int:
    """How many there are, found out in a process of its own, since looking may take hold of them."""
    from importlib.metadata import version  # it takes its time, also of `--help`

    if version("torch").endswith("+cpu"):
        return 0
    done = subprocess.run(
        [sys.executable, "-c", _COUNT], capture_output=True, text=True, check=False
    )
    return int(done.stdout) if done.stdout.strip().isdigit() else 0


def _asked_for_cpu() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def _is_one_of(num_processes: int) -> bool:
    """Whether this is one of the processes that were asked for."""
    size = os.environ.get("WORLD_SIZE")
    if size is None or os.environ.get(PROCESSES) == str(num_processes):
        return size is not None
    raise typer.BadParameter(
        f"--processes {num_processes} inside a launcher, which started {size} processes already; "
        "leave --processes away, or call reuselib without a launcher"
    )
