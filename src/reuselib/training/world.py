"""The processes that make one child together: who is who, and how they talk when they do not train.

Training talks through collective calls, which must be entered by all at about the same time. Everything else is the
work of the first process, which may take hours, so the others wait for its word in a store of keys and values, where
waiting has no limit and where a process that fails can say why.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reuselib.errors import PeerFailed, ReuseError, TrainingError
from reuselib.training.setups import carried_out, read_setup
from reuselib.training.threads import undivided

if TYPE_CHECKING:
    from reuselib.adapter import Json

FAILED = "failed"
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.2
"""Seconds between two looks at what is waited for."""
LINGER = 2.0
"""Seconds for which a failed first process stays, since what it says goes with it."""
SPOKEN = "reuselib/spoken"
SPEAKING = 10.0
"""Seconds that the first process has to say why all of them end."""
ARRIVAL = 1800.0
"""Seconds after which a process that does not come to a meeting is given up."""

_present: ContextVar[World | None] = ContextVar("the processes that make one child", default=None)
_alone: ContextVar[bool] = ContextVar("this process works by itself", default=False)


@dataclass(frozen=True)
class World:
    """This process among those that were launched together; one process is a world of its own."""

    rank: int = 0
    size: int = 1
    store: Any = None
    """Keys and values of this conversation, a `torch.distributed.Store`; None in a world of one."""

    @property
    def main(self) -> bool:
        """Whether this process is the one that plans, writes and speaks."""
        return self.rank == 0

    def broadcast(self, value: Json = None) -> Json:
        """What the first process says; the others wait for it, however long that takes.

        Raises:
            PeerFailed: another process failed meanwhile.
        """
        if self.size == 1:
            return value
        key = f"said/{self._turn('said')}"
        if not self.main:
            self._await(lambda: self.store.check([key]))
            return json.loads(self.store.get(key))
        self._refuse_failure()
        self.store.set(key, json.dumps(value))
        return value

    def barrier(self) -> None:
        """Wait until all processes are here, so that none waits in a collective call for one that is still far.

        Raises:
            PeerFailed: another process failed, or did not come within `ARRIVAL`.
        """
        if self.size == 1:
            return
        key = f"here/{self._turn('here')}"
        self.store.add(key, 1)
        self._await(lambda: self.store.add(key, 0) >= self.size, ARRIVAL)

    def part(self) -> None:
        """End the conversation. The first process may hold the keys and values, so it leaves last."""
        if self.size == 1:
            return
        self.store.add("gone", 1)
        if self.main:
            self._await(lambda: self.store.add("gone", 0) >= self.size, ARRIVAL)

    @contextmanager
    def sharing_fate(self) -> Iterator[None]:
        """Let the others know if this process fails within, and say so if it does because another one did.

        Raises:
            PeerFailed: in place of what a broken connection raises.
        """
        if self.size == 1:
            yield
            return
        token = _present.set(self)
        try:
            yield
        except PeerFailed:
            raise
        except BaseException as error:
            if isinstance(error, RuntimeError) and (peer := self._lost(error)):
                raise peer from error
            self._confess(error)
            raise
        finally:
            _present.reset(token)

    def _turn(self, what: str) -> int:
        """All processes go through the same meetings in the same order, so their number names them."""
        return self.store.add(f"turn/{what}/{self.rank}", 1)

    def _await(self, come: Any, limit: float = float("inf")) -> None:
        pause, end = FIRST_PAUSE, time.monotonic() + limit
        while not come():
            self._refuse_failure()
            if time.monotonic() > end:
                raise PeerFailed(
                    f"not all {self.size} processes came within {limit / 60:.0f} minutes",
                    fix="see what the others say, and run again",
                )
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)

    def _refuse_failure(self) -> None:
        if self.store.check([FAILED]):
            told = json.loads(self.store.get(FAILED))
            self.store.add("heard", 1)
            raise PeerFailed(
                f"process {told['rank']} failed: {told['what']}", code=told["code"], told=True
            )

    def _confess(self, error: BaseException) -> None:
        code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
        what = str(error) if isinstance(error, ReuseError) else f"{type(error).__name__}: {error}"
        try:
            self.store.set(FAILED, json.dumps({"rank": self.rank, "what": what, "code": code}))
            end = time.monotonic() + LINGER
            while (
                self.main and time.monotonic() < end and self.store.add("heard", 0) < self.size - 1
            ):
                time.sleep(LONGEST_PAUSE)
        except RuntimeError:
            pass  # there is nobody left to hear it

    def _lost(self, error: RuntimeError) -> PeerFailed | None:
        """Why a collective call broke off, if it is because another process ended."""
        import torch.distributed as dist

        if not isinstance(error, dist.DistError) and "onnection" not in str(error):
            return None
        try:
            for _ in range(10):  # it speaks before its connections close, but to the first process
                self._refuse_failure()
                time.sleep(LONGEST_PAUSE / 2)
        except PeerFailed as peer:
            return peer
        except RuntimeError:
            pass  # the store went with the first process
        return PeerFailed(
            "another process of this run ended without a word",
            expected=f"{self.size} processes until the end",
            fix="look for a lack of memory, or a signal; then run again, finished steps are kept",
        )


def join() -> World:
    """The world that this process was launched into: by `reuselib run --processes`, accelerate or torchrun.

    The process group that training will use is made here, if there is none yet, and stays. A process that was launched
    by itself loads nothing and leaves no trace.

    Raises:
        TrainingError: accelerate is configured for something that no training here does.
    """
    if not _launched():
        return World()
    read_setup()
    _require_meeting_place()
    import torch
    import torch.distributed as dist
    from accelerate.state import PartialState

    threads = torch.get_num_threads()
    with carried_out(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it sets threads, which is undone below
        PartialState(cpu=on_cpu())
    torch.set_num_threads(threads)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return World()
    # There is no public way to what the group was made with, and a store of one's own would need another open port.
    from torch.distributed.distributed_c10d import _get_default_store

    store, rank = _get_default_store(), dist.get_rank()
    number = store.add(f"reuselib/conversations/{rank}", 1)
    return World(rank, dist.get_world_size(), dist.PrefixStore(f"reuselib/{number}", store))


def await_first(otherwise: Callable[[], None]) -> None:
    """Wait until the first process is here too, however long its work takes: longer than a collective call may.

    Args:
        otherwise: how to wait where no run of several processes is under way, which has a limit.

    Raises:
        PeerFailed: another process failed meanwhile.
    """
    world = _present.get()
    if world is None:
        otherwise()
    else:
        world.broadcast()


def await_first_words(*, first: bool) -> None:
    """Let the first process say all that it has to say before the others end; not longer than `SPEAKING`.

    Args:
        first: whether this is the first process, which has said it.
    """
    if not _in_group():
        return
    from torch.distributed.distributed_c10d import _get_default_store

    store, end = _get_default_store(), time.monotonic() + SPEAKING
    try:
        if first:
            store.set(SPOKEN, "")
        while not store.check([SPOKEN]) and time.monotonic() < end:
            time.sleep(FIRST_PAUSE)
    except RuntimeError:
        pass  # it has ended, and the store with it


def on_cpu() -> bool:
    """Whether to train on the CPU: it was asked for, or there is nothing else."""
    import torch

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or not torch.accelerator.is_available()


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 or _in_group()


def _in_group() -> bool:
    dist: Any = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized()


def _require_meeting_place() -> None:
    missing = [each for each in ("RANK", "MASTER_ADDR", "MASTER_PORT") if each not in os.environ]
    if missing and not _in_group():
        raise TrainingError(
            f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but {', '.join(missing)} is not set",
            expected="one process, or a launcher that says where its processes meet",
            fix="use --processes, `torchrun` or `accelerate launch`; or unset WORLD_SIZE",
        )


@contextmanager
def alone(world: World) -> Iterator[None]:
    """Compute without the others within, who wait: with all cores, and with no row dealt out to them."""
    token = _alone.set(True)
    try:
        if world.size > 1 and world.main:
            with undivided():
                yield
        else:
            yield
    finally:
        _alone.reset(token)


@contextmanager
def together() -> Iterator[None]:
    """Compute with the others within, who are at the same place."""
    from reuselib.training.threads import divided

    token = _alone.set(False)
    try:
        with divided():
            yield
    finally:
        _alone.reset(token)


def place() -> tuple[int, int]:
    """Rank and number of the processes that compute together right now."""
    import torch.distributed as dist

    if not _alone.get() and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
