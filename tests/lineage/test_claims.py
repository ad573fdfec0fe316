from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from reuselib.errors import StoreError
from reuselib.lineage.claims import Claims

NAME = "ab" * 32
HOLD = """
import sys, time
from pathlib import Path
from reuselib.lineage.claims import Claims
with Claims(Path(sys.argv[1])).hold(sys.argv[2], sys.argv[3:]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(folder: Path, *needs: str):
    """One that holds a claim until it is told to go on, or killed."""
    command = [sys.executable, "-c", HOLD, str(folder), NAME, *needs]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path / "claims")


def waiter(claims: Claims) -> tuple[threading.Thread, list[object]]:
    said: list[object] = []

    def work() -> None:
        with claims.hold(NAME, (), said.append) as waited:
            said.append(waited)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, said


def test_who_is_alone_does_not_wait_and_leaves_nothing(claims):
    with claims.hold(NAME, ("x",)) as waited:
        assert not waited
        assert claims.held() == {NAME: {"x"}}

    assert claims.held() == {}
    assert list(claims.folder.iterdir()) == []


def test_the_second_waits_for_the_first_and_is_told_for_whom(claims):
    with another_process(claims.folder) as process:
        thread, said = waiter(claims)
        thread.join(0.3)
        assert said == [f"process {process.pid}"]

        process.communicate("go on\n", timeout=20)
        thread.join(20)

    assert said[1:] == [True]
    assert list(claims.folder.iterdir()) == []


def test_a_process_that_is_killed_gives_up_its_claim(claims):
    with another_process(claims.folder) as process:
        thread, said = waiter(claims)
        thread.join(0.2)
        assert len(said) == 1

        process.send_signal(signal.SIGKILL)
        thread.join(20)

    assert said[1:] == [True]


def test_of_many_only_one_is_inside_at_a_time(claims):
    inside, most = [], []

    def work() -> None:
        for _ in range(20):
            with claims.hold(NAME, ()):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(most) == 120
    assert set(most) == {1}


def test_what_a_living_process_needs_is_known_and_a_dead_one_needs_nothing(claims):
    with another_process(claims.folder, "parent", "base") as process:
        assert claims.held() == {NAME: {"parent", "base"}}

        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(claims.folder.iterdir())

        assert claims.held() == {}
    assert list(claims.folder.iterdir()) == []


def test_an_error_inside_ends_the_claim(claims):
    with pytest.raises(KeyboardInterrupt), claims.hold(NAME, ()):
        raise KeyboardInterrupt

    assert claims.held() == {}


def test_a_disk_without_locks_lets_everyone_in(claims, monkeypatch):
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claims.hold(NAME, ()) as first, claims.hold(NAME, ()) as second:
        assert (first, second) == (False, False)


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(StoreError, match="cannot write"),
        Claims(tmp_path / "file/x").hold(NAME, ()),
    ):
        pass
