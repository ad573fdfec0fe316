"""A time limit for work in Python that may never end by itself."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

NUM_TRIES = 50
"""How often a thread is told to stop, a tenth of a second apart: a bare `except:` swallows what it is told."""


class _Stop(BaseException):
    """Raised inside the work, where nothing that handles errors will take it for one."""


def limited(work: Callable[[], T], seconds: float) -> T:
    """What `work` returns, or the error it raises, unless it takes longer than `seconds`.

    It runs in a thread of its own, so that it can be stopped wherever it is: at the next instruction of Python. A
    thread that does not come back from a call into C is left behind, and ends with the process.

    Raises:
        TimeoutError: it took longer.
    """
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except _Stop:
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:
        _stop(thread)  # also if the caller is interrupted while it waits
    if not outcome:
        raise TimeoutError(f"stopped after {seconds:g} seconds")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _stop(thread: threading.Thread) -> None:
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    for _ in range(NUM_TRIES):
        if not thread.is_alive():
            return
        raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stop))
        thread.join(0.1)
