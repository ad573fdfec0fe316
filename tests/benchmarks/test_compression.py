from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_runs_and_holds_every_chain_against_the_model_before(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/compression.py", "--smoke", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300, capture_output=True)

    found = json.loads(output.read_text())["data"]["tiny"]
    assert set(found) == {"tuned", "int8", "int8_token", "ffn", "whole"}
    for name in ("int8", "int8_token", "ffn", "whole"):
        lost = found[name]["points_lost"]
        assert lost["low"] <= lost["mean"] <= lost["high"]
        assert set(found[name]["faster_by"]) == {"batch 32", "batch 1"}
        assert 0 < found[name]["bytes_ratio"] < 1
    # of the tiny network: three layers in four of attention stay whole, and half of the feed-forward part goes
    assert found["ffn"]["flops_ratio"] > 1.2
