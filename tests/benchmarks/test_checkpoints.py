from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_keeps_and_goes_on_each_way(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/checkpoints.py", "--smoke", "--rounds", "1"]

    subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
        timeout=300,
        capture_output=True,
    )

    for told in json.loads(output.read_text())["modes"].values():
        assert all(told[name]["num_bytes"] > 0 for name in ("reuselib", "accelerate", "trainer"))
        assert told["reuselib"]["read_seconds"] > 0
