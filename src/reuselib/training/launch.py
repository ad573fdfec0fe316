"""Several processes of one command on this machine, as torchrun and accelerate start them, but with one voice.

Only the first process writes to the terminal. When one fails, the others are ended within seconds, and what is read is
the message of the one that failed first.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from reuselib.training.threads import CORES, num_cores

PROCESSES = "REUSELIB_PROCESSES"
"""Variable of the environment: how many processes `launch` started; it is what tells it from other launchers."""
PEER_FAILED = 75
"""With this a process ends if it does so because another one failed, which says why."""
INTERRUPTED = 130
GRACE = 5.0
"""Seconds that processes have to end by themselves once one failed, and again once they were told to end."""
SAVING = 600.0
"""Seconds that they have if they are ending anyway because they were interrupted: they may be saving their state."""
POLL = 0.02


def launch(command: Sequence[str], num_processes: int, *, cpu: bool) -> int:
    """Run `command` in several processes that find one another; return when all have ended.

    SIGINT and SIGTERM are passed on. The processes do not get those of the terminal themselves, so each arrives once.

    Args:
        command: a program and its arguments, the same for all.
        num_processes: at least 1.
        cpu: whether they are to compute on the CPU, although there may be something else.

    Returns:
        0, or the exit code of the process that failed first: as a shell has it, 128 + number of the signal that
        killed it.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reuselib-")))
        crew = Crew([])
        stack.enter_context(_passing_on(crew))
        stack.callback(crew.kill)
        shared = {**os.environ, **environment(num_processes, cpu=cpu)}
        for rank in range(num_processes):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            crew.ranks.append(_started(command, own, folder / f"{rank}.txt" if rank else None))
        crew.wait()
        return crew.verdict(folder)


def environment(num_processes: int, *, cpu: bool) -> dict[str, str]:
    """What all processes are told by the environment, besides their rank; what the user set is left alone."""
    told = {
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        PROCESSES: str(num_processes),
        # that no parameter went unused, which DDP says of nearly every network
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL") or "ERROR",
    }
    if not os.environ.get("OMP_NUM_THREADS"):
        told["OMP_NUM_THREADS"] = str(max(1, num_cores() // num_processes))
        told[CORES] = str(num_cores())
    if cpu:
        told["ACCELERATE_USE_CPU"] = "true"
        if sys.platform == "linux":
            told["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME") or "lo"
    return told


@dataclass
class Crew:
    """The processes, by rank."""

    ranks: list[subprocess.Popen[bytes]]
    ended: list[int] = field(default_factory=list)
    """Ranks in the order in which they ended."""

    def wait(self) -> None:
        """Until all have ended; not long after the first failure."""
        told, deadline = False, float("inf")
        while len(self.ended) < len(self.ranks):
            self._look()
            if deadline == float("inf") and (code := self.failure()) is not None:
                deadline = time.monotonic() + (SAVING if code == INTERRUPTED else GRACE)
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL if told else signal.SIGTERM)
                told, deadline = True, time.monotonic() + GRACE
            time.sleep(POLL)

    def failure(self) -> int | None:
        """Exit code of the first process that failed by itself; of any that failed if there is no such one."""
        rank = self._first()
        return None if rank is None else _code(self.ranks[rank])

    def verdict(self, folder: Path) -> int:
        """Show the message of the process that failed first, unless it was seen already; its exit code."""
        rank = self._first()
        if rank is None:
            return 0
        code = self.ranks[rank].returncode
        if code < 0:
            sys.stderr.write(f"process {rank} was ended by {signal.Signals(-code).name}\n")
        if rank and _code(self.ranks[rank]) != INTERRUPTED:
            text = (folder / f"{rank}.txt").read_text(encoding="utf-8", errors="replace")
            sys.stderr.write(text and f"process {rank} failed:\n{text}")
        if code < 0:
            sys.stderr.write("the other processes were ended; finished steps are kept: run again\n")
        return _code(self.ranks[rank])

    def send(self, number: int) -> None:
        """A signal to all that still run."""
        for process in self.ranks:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def kill(self) -> None:
        """Leave nothing behind."""
        for process in self.ranks:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _look(self) -> None:
        new = [at for at, each in enumerate(self.ranks) if at not in self.ended]
        new = [at for at in new if self.ranks[at].poll() is not None]
        # Of those that ended since the last look, one that was killed is the cause of what the others say.
        self.ended += sorted(new, key=lambda at: self.ranks[at].returncode >= 0)

    def _first(self) -> int | None:
        failed = [at for at in self.ended if self.ranks[at].returncode]
        causes = [at for at in failed if self.ranks[at].returncode != PEER_FAILED]
        return next(iter(causes or failed), None)


def _started(
    command: Sequence[str], told: Mapping[str, str], stderr: Path | None
) -> subprocess.Popen[bytes]:
    """One process; all but the first are silent, and what they would say is kept in a file."""
    with ExitStack() as stack:
        out = error = None
        if stderr is not None:
            out, error = subprocess.DEVNULL, stack.enter_context(stderr.open("wb"))
        return subprocess.Popen(
            list(command),
            env=dict(told),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Have the system tell this process to end if its parent is killed and can no longer do so."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextmanager
def _passing_on(crew: Crew) -> Iterator[None]:
    """Hand SIGINT and SIGTERM to the processes instead of ending here."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may decide about signals
        return

    def hand(number: int, _: FrameType | None) -> None:
        crew.send(number)

    before = {number: signal.signal(number, hand) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _code(process: subprocess.Popen[bytes]) -> int:
    code = process.returncode
    return 128 - code if code < 0 else code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
