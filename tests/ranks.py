"""What several processes made, once for all tests of a session; the processes are forked, so that each starts at once.

A process that has run torch must not be forked; one that has only imported it, with one thread, may. So a program of
its own imports what is needed, and becomes the processes.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reuselib.lineage.locks import locked
from reuselib.training.launch import environment

LIMIT = 300
"""Seconds after which processes count as hanging."""
IMPORTED = ("accelerate", "peft", "transformers.models.bert.modeling_bert")
"""What takes time to import, and whose first use imports it."""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, in the first test that asks for it; pytest's workers share it.

    A failure is kept, and told to everyone who asks.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, told = root / name, root / f"{name}.told"
    with locked(root / f"{name}.lock"):
        if not told.exists():
            folder.mkdir()
            try:
                make(folder)
            except Exception:  # noqa: BLE001 - whatever it is, it is told to all
                told.write_text(traceback.format_exc())
            else:
                told.touch()
    assert not told.read_text(), told.read_text()
    return folder


def run(program: Path, *arguments: Path, **environment: str) -> None:
    """Run a program that calls `fork`, with one thread; what it says is what is raised if it fails."""
    paths = [*map(str, dict.fromkeys((program.parent, Path(__file__).parent))), *sys.path]
    told = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # read when torch is imported
        **environment,
    }
    done = subprocess.run(
        [sys.executable, str(program), *map(str, arguments)],
        env=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stdout)


def fork(
    sizes: Sequence[int], work: Callable[[int, int], int | None], folder: Path
) -> dict[int, list[int]]:
    """Become processes of several worlds at once, as `--processes` would start them; their exit codes by size.

    Args:
        sizes: how many processes each world has.
        work: what each does, given the size of its world and its rank; returns its exit code, None for 0.
        folder: where what each writes to the terminal goes, see `said`.
    """
    for name in IMPORTED:
        importlib.import_module(name)
    started: dict[int, list[int]] = {}
    for size in sizes:
        shared = environment(size, cpu=True)
        for rank in range(size):
            place = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            pid = os.fork()
            if not pid:
                _be(place, lambda size=size, rank=rank: work(size, rank), said(folder, size, rank))
            started.setdefault(size, []).append(pid)
    return {
        size: [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        for size, pids in started.items()
    }


def said(folder: Path, size: int, rank: int) -> Path:
    """Where to read what a process wrote to the terminal."""
    return folder / f"said-{size}-{rank}.txt"


def _be(place: dict[str, str], work: Callable[[], int | None], said: Path) -> None:
    """The life of a process, which does not return."""
    code = 1
    try:
        _end_with_parent()
        os.environ.update(place)
        with said.open("wb") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        code = work() or 0
    except BaseException:  # noqa: BLE001 - a process ends with it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with_parent() -> None:
    from reuselib.training import launch

    if sys.platform == "linux":
        launch._end_with_parent()
