"""Ctrl-C and SIGTERM while a network trains: the step that is being done is finished first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))
ONE_PRESS = 0.5
"""Seconds within which a second Ctrl-C is the first, passed on by a launcher that got it from the terminal too."""

NOTICE = b"\nfinishing this step, then keeping the training; Ctrl-C again ends at once\n"


@dataclass
class Interruption:
    """Whether a training was told to end."""

    requested: bool = False
    _since: float = field(default=0.0, repr=False)

    def request(self, number: int, _frame: FrameType | None = None) -> None:
        """Take note of a signal; a second Ctrl-C ends at once.

        Raises:
            KeyboardInterrupt: it is the second.
        """
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
            if sys.stderr is not None and sys.stderr.isatty():
                # straight to the terminal: a print may be what was interrupted
                os.write(sys.stderr.fileno(), NOTICE)
        elif number == signal.SIGINT and now - self._since > ONE_PRESS:
            raise KeyboardInterrupt


@contextmanager
def heeded() -> Iterator[Interruption]:
    """Take note of Ctrl-C and SIGTERM within, instead of ending; afterwards they do again what they did before.

    Only the main thread may say what signals do, so in another nothing is noticed.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.request) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            # None: it was not set from Python, and cannot be put back from there
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
