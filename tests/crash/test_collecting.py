from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from chains import text_chain
from crash import collecting


def test_children_outlive_a_gc_that_is_killed(tmp_path):
    store = text_chain(tmp_path).copied_store(tmp_path / "copy")
    shutil.rmtree(store / "tmp", ignore_errors=True)

    command = [sys.executable, str(Path(collecting.__file__)), str(store), "6"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout

    assert told.startswith("6 kills at "), told
