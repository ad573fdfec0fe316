"""The demonstration keeps what it promises: each lie passes what it is made to pass, and is found by what should find it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUND_BY = (
    "`prove`",
    "`audit`",
    "`verify`",
    "`reproduce --steps",
    "`verify --policy`",
    "`verify --policy`",
)


def test_every_lie_is_found(tmp_path):
    """The script asserts the details itself; here it is held to having come to the end of every scene."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs/demonstration.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    found = [line for line in lines if line.startswith("found by")]
    assert lines[0].endswith(": proven")
    assert len(found) == len(FOUND_BY)
    assert all(
        line.startswith(f"found by {how}") for line, how in zip(found, FOUND_BY, strict=True)
    )
