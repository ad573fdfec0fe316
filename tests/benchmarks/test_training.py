from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_runs_and_writes_every_competitor(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/training.py", "--smoke", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300, capture_output=True)

    result = json.loads(output.read_text())
    for mode in ("full", "lora"):
        assert set(result["summary"][mode]) == {
            "trainer",
            "trainer_tuned",
            "bare",
            "bare_torch",
            "reuselib",
            "fraction_of_matrix_peak",
        }
    assert set(result["precision"]) == {"trainer", "others"}
    assert str(Path.home()) not in output.read_text()
