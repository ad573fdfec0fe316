"""What the packaged model was estimated to take is what it then takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lora", "rtn"])
def test_estimates_lie_within_15_percent(tmp_path: Path, recipe: str) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/budget.py", "--only", recipe, "--precision", "fp32"]
    command += ["--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        command, cwd=ROOT, env=environment, check=True, timeout=1800, capture_output=True
    )

    found = json.loads(output.read_text())[recipe]["fp32"]

    assert found["memory"]["ratio"] == pytest.approx(1, abs=0.15)
    assert found["disk"]["ratio"] == pytest.approx(1, abs=0.15)
