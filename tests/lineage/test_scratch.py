from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from reuselib.lineage.scratch import scratch, sweep

HOLD = """
import sys, time
from pathlib import Path
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


def test_fresh_lock_without_a_folder_stays_and_an_old_one_goes(tmp_path):
    lock = tmp_path / "abc.lock"
    lock.write_text("")
    sweep(tmp_path)
    assert lock.exists()

    hours_ago = time.time() - 7200
    os.utime(lock, (hours_ago, hours_ago))
    sweep(tmp_path)

    assert not lock.exists()


def test_nothing_to_sweep_is_no_error(tmp_path):
    assert sweep(tmp_path / "nowhere") == 0
