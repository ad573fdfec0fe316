from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_runs_and_writes_every_way_to_learn(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/distillation.py", "--smoke", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300, capture_output=True)

    result = json.loads(output.read_text())
    assert set(result["summary"]) == {"plain", "logits", "hidden", "relations"}
    assert result["summary"]["plain"]["plain_is_faster_by"]["median"] == 1.0
    assert all(asked["lesson_bytes"] > 0 for asked in result["asking"].values())
    assert str(Path.home()) not in output.read_text()
