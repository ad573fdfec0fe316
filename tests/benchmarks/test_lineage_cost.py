from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_tells_what_each_part_of_the_record_costs(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/lineage_cost.py", "--smoke", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300, capture_output=True)

    result = json.loads(output.read_text())
    assert {"pinning parents", "rows", "record", "trail"} <= set(result["parts"])
    assert all(seconds > 0 for seconds in result["parts"].values())
    assert 0 < sum(result["parts"].values()) < result["total"]
    assert 0 < result["measuring"] < result["total"]
    assert [each["steps"] for each in result["trainings"]] == [8, 8]
    assert all(0 < each["trail_seconds"] < each["seconds"] for each in result["trainings"])
    assert str(Path.home()) not in output.read_text()
