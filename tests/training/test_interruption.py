from __future__ import annotations

import signal
import threading

import pytest

from reuselib.training import interruption
from reuselib.training.interruption import heeded


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with heeded() as noted:
        assert not noted.requested
        signal.raise_signal(number)
        assert noted.requested

    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_at_once(monkeypatch):
    monkeypatch.setattr(interruption, "ONE_PRESS", -1.0)

    with heeded():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_press_that_arrives_twice_is_one(monkeypatch):
    """From the terminal, and passed on by a launcher, which may then also send SIGTERM."""
    monkeypatch.setattr(interruption, "ONE_PRESS", 60.0)
    with heeded() as noted:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)

    assert noted.requested


def test_sigterm_never_ends_at_once(monkeypatch):
    monkeypatch.setattr(interruption, "ONE_PRESS", -1.0)
    with heeded() as noted:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    assert noted.requested


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="oh"), heeded():
        raise ValueError("oh")

    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_nothing_is_noticed_and_nothing_fails():
    noted = []

    def work():
        with heeded() as each:
            noted.append(each.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert noted == [False]
