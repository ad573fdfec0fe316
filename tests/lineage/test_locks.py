from __future__ import annotations

import os
import threading

from reuselib.lineage.locks import locked, try_lock


def test_a_lock_is_for_one_unless_it_is_shared(tmp_path):
    path = tmp_path / "lock"
    with locked(path, shared=True), locked(path, shared=True):
        descriptor = os.open(path, os.O_RDWR)
        assert try_lock(descriptor, shared=True)
        assert try_lock(descriptor) is False
        os.close(descriptor)

    with locked(path):
        descriptor = os.open(path, os.O_RDWR)
        assert try_lock(descriptor, shared=True) is False
        os.close(descriptor)


def test_who_comes_second_waits(tmp_path):
    order = []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(20)

    assert order == ["first", "second"]
