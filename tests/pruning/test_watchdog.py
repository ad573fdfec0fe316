from __future__ import annotations

import threading
import time

import pytest

from reuselib.pruning.watchdog import limited


def test_work_that_ends_gives_its_result():
    assert limited(lambda: 3, 10) == 3


def test_an_error_comes_through():
    def fail():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        limited(fail, 10)


def test_a_loop_without_end_is_stopped():
    seen = []

    def loop():
        seen.append(threading.current_thread())
        while True:
            pass

    with pytest.raises(TimeoutError, match=r"after 0\.05 seconds"):
        limited(loop, 0.05)

    assert not seen[0].is_alive()


def test_a_loop_that_swallows_every_error_once_is_stopped_all_the_same():
    """As torch-pruning does around the network's forward."""
    seen = []

    def stubborn():
        seen.append(threading.current_thread())
        try:
            while True:
                pass
        except:  # noqa: E722
            pass
        while True:
            pass

    with pytest.raises(TimeoutError):
        limited(stubborn, 0.05)

    assert not seen[0].is_alive()


def test_what_sits_in_a_call_into_c_is_left_behind(monkeypatch):
    monkeypatch.setattr("reuselib.pruning.watchdog.NUM_TRIES", 1)

    with pytest.raises(TimeoutError):
        limited(lambda: time.sleep(0.5), 0.01)


def test_gradients_are_recorded_whatever_the_caller_does():
    """The dependency graph is traced through autograd."""
    import torch

    with torch.no_grad():
        assert limited(torch.is_grad_enabled, 10)
