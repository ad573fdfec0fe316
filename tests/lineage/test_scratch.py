from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from reuselib.lineage import locks
from reuselib.lineage import scratch as module
from reuselib.lineage.scratch import scratch, sweep

HOLD = """
import sys, time
from pathlib import Path
from reuselib.lineage import locks
from reuselib.lineage import scratch as module
from reuselib.lineage.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "part").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_folder_is_empty_and_gone_afterwards(tmp_path):
    with scratch(tmp_path / "tmp") as folder:
        assert list(folder.iterdir()) == []
        (folder / "x").write_text("x")

    assert list((tmp_path / "tmp").iterdir()) == []


def test_folder_is_removed_when_the_block_raises(tmp_path):
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path):
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_living_process_stays_and_that_of_a_killed_one_goes(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        folder = process.stdout.readline().strip()
        assert sweep(tmp_path) == 0
        assert os.path.exists(f"{folder}/part")

        process.send_signal(signal.SIGKILL)
        process.wait()

    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_lock_without_a_folder_goes_whatever_the_clock_says(tmp_path):
    lock = tmp_path / f"{'ab' * 16}.lock"
    lock.write_text("")
    tomorrow = time.time() + 86_400
    os.utime(lock, (tomorrow, tomorrow))

    sweep(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_who_is_swept_between_making_and_taking_its_lock_takes_another(tmp_path, monkeypatch):
    swept: list[int] = []

    def sweep_first(descriptor: int) -> bool | None:
        if not swept:
            swept.append(1)
            assert sweep(tmp_path) == 0
        return locks.try_lock(descriptor)

    monkeypatch.setattr(module, "try_lock", sweep_first)

    with scratch(tmp_path) as folder:
        monkeypatch.undo()
        assert sweep(tmp_path) == 0
        assert folder.is_dir()


def test_folder_that_lost_its_lock_in_a_power_cut_goes(tmp_path):
    (tmp_path / ("ab" * 16) / "x").mkdir(parents=True)

    assert sweep(tmp_path) == 1

    assert list(tmp_path.iterdir()) == []


def test_lock_of_someone_else_and_what_it_stands_beside_stay(tmp_path):
    (tmp_path / "poetry").mkdir()
    (tmp_path / "poetry.lock").write_text("")
    (tmp_path / f".other.{'ab' * 16}.lock").write_text("")

    sweep(tmp_path)
    sweep(tmp_path, ".out.")

    assert len(list(tmp_path.iterdir())) == 3


def test_folder_that_cannot_be_removed_keeps_its_lock_for_the_next_sweep(tmp_path, monkeypatch):
    def fails(path: object, *, ignore_errors: bool) -> None:
        assert ignore_errors

    monkeypatch.setattr(module.shutil, "rmtree", fails)
    with scratch(tmp_path):
        pass
    assert sweep(tmp_path) == 0
    monkeypatch.undo()

    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_sweep_is_no_error(tmp_path):
    assert sweep(tmp_path / "nowhere") == 0
