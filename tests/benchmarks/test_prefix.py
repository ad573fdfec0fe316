from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_trains_the_same_weights_each_way(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(
        [sys.executable, "benchmarks/prefix.py", "--smoke", "--output", str(output)],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )

    found = json.loads(output.read_text())["found"]
    assert set(found) == {"head", "blocks"}
    for each in found.values():
        assert all(said.startswith("before ") for said in each["cache"])
        assert each["largest_difference"] < 1e-5
