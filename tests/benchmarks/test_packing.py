from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_trains_on_the_same_texts_each_way(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    asked = ["--smoke", "--rounds", "1", "--steps", "2", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(
        [sys.executable, "benchmarks/packing.py", *asked],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )

    runs = {name: each[0] for name, each in json.loads(output.read_text())["runs"].items()}
    for one, other in (("padded", "packed"), ("grouped", "grouped_packed")):
        assert abs(runs[one]["loss"] - runs[other]["loss"]) < 1e-4 * runs[one]["loss"]
    assert runs["packed"]["filled"] > runs["padded"]["filled"]
