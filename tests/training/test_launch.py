"""Programs without torch: what matters is who ends when, and what is read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reuselib.training import launch as launching
from reuselib.training.launch import INTERRUPTED, PEER_FAILED, environment, launch
from reuselib.training.threads import num_cores

PRELUDE = "import os, signal, sys, time; rank = int(os.environ['RANK'])\n"
LIMIT = 25.0
"""Seconds; every program here would otherwise sleep for a minute."""


@pytest.fixture(autouse=True)
def _little_grace(monkeypatch):
    monkeypatch.setattr(launching, "GRACE", 0.5)


def run(code: str, num_processes: int = 3) -> int:
    began = time.monotonic()
    result = launch([sys.executable, "-c", PRELUDE + code], num_processes, cpu=True)
    assert time.monotonic() - began < LIMIT
    return result


def test_each_process_knows_its_place_and_where_to_meet(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT OMP_NUM_THREADS ACCELERATE_USE_CPU"
    code = (
        "import json\n"
        f"told = {{name: os.environ.get(name) for name in {names.split()!r}}}\n"
        f"json.dump(told, open(os.path.join({str(tmp_path)!r}, str(rank)), 'w'))"
    )

    assert run(code) == 0

    told = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [each["RANK"] for each in told] == [each["LOCAL_RANK"] for each in told] == list("012")
    assert {(each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"]) for each in told} == {("3", "3")}
    assert {each["MASTER_ADDR"] for each in told} == {"127.0.0.1"}
    assert len({each["MASTER_PORT"] for each in told}) == 1
    assert {each["OMP_NUM_THREADS"] for each in told} == {str(max(1, num_cores() // 3))}
    assert {each["ACCELERATE_USE_CPU"] for each in told} == {"true"}


def test_threads_that_the_user_decided_about_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    told = environment(2, cpu=True)

    assert "OMP_NUM_THREADS" not in told
    assert launching.CORES not in told


def test_only_the_first_process_is_heard(capfd):
    assert run("print('out', rank); print('err', rank, file=sys.stderr)") == 0

    said = capfd.readouterr()
    assert (said.out, said.err) == ("out 0\n", "err 0\n")


def test_the_message_and_the_code_of_the_first_failure_are_the_runs(capfd):
    code = "if rank == 1: sys.exit(print('the reason', file=sys.stderr) or 5)\ntime.sleep(60)"

    assert run(code) == 5

    assert capfd.readouterr().err == "process 1 failed:\nthe reason\n"


def test_a_process_that_fails_because_of_another_one_is_not_the_cause(capfd):
    code = (
        f"if rank == 2: sys.exit({PEER_FAILED})\n"
        "time.sleep(0.3)\n"
        "if rank == 1: sys.exit(print('the reason', file=sys.stderr) or 4)\n"
        "time.sleep(60)"
    )

    assert run(code) == 4

    assert "the reason" in capfd.readouterr().err


def test_a_killed_process_is_named_with_its_signal(capfd):
    assert run("if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)") == 128 + 9

    assert "process 1 was ended by SIGKILL" in capfd.readouterr().err


def test_a_process_that_does_not_listen_is_killed():
    assert (
        run(
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif rank == 1: sys.exit(3)\ntime.sleep(60)"
        )
        == 3
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once_and_the_run_ends_as_interrupted(tmp_path, number):
    """The processes take a second to save, which is longer than what they would have after a failure."""
    code = PRELUDE + (
        "seen = []\n"
        "for each in (signal.SIGINT, signal.SIGTERM): signal.signal(each, lambda number, _: seen.append(number))\n"
        f"open(os.path.join({str(tmp_path)!r}, f'ready{{rank}}'), 'w').close()\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(rank)\n"
        f"open(os.path.join({str(tmp_path)!r}, f'saved{{rank}}'), 'w').write(str(seen))\n"
        f"sys.exit({INTERRUPTED})"
    )
    outer = (
        "import sys\nfrom reuselib.training import launch\nlaunch.GRACE = 0.2\n"
        f"sys.exit(launch.launch([sys.executable, '-c', {code!r}], 2, cpu=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", outer])
    _until(lambda: all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)))

    process.send_signal(number)

    assert process.wait(LIMIT) == INTERRUPTED
    seen = [(tmp_path / f"saved{rank}").read_text() for rank in (0, 1)]
    assert seen == [str([int(number)])] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells children")
def test_no_process_outlives_a_parent_that_was_killed(tmp_path):
    code = (
        f"import os, time; open(os.path.join({str(tmp_path)!r}, os.environ['RANK']), 'w').write(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    outer = (
        "import sys\nfrom reuselib.training.launch import launch\n"
        f"launch([sys.executable, '-c', {code!r}], 2, cpu=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", outer])
    files = [tmp_path / str(rank) for rank in (0, 1)]
    _until(lambda: all(file.exists() and file.read_text() for file in files))

    process.kill()
    process.wait()

    _until(lambda: not any(_runs(int(file.read_text())) for file in files))


def _until(come) -> None:
    end = time.monotonic() + LIMIT
    while not come():
        assert time.monotonic() < end
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
