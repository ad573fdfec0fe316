"""Models are derived and proven in less memory than they take themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux counts private memory in RLIMIT_DATA"
)
def test_a_model_larger_than_what_the_limit_leaves(tmp_path: Path) -> None:
    """The limit is below the model and what a process takes that has imported torch, transformers and peft."""
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/big_models.py", "--gigabytes", "0.5", "--limit", "0.75"]
    command += ["--width", "1024", "--folder", str(tmp_path), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600, capture_output=True)

    found = json.loads(output.read_text())
    for name in ("quantize", "merge", "prove quantize", "prove merge"):
        # a network in memory would have taken this much beside what the imports take
        assert found[name]["private"] < found["bytes"], name
    assert found["quantize"]["bytes"] < 0.5 * found["bytes"]
    assert found["merge"]["bytes"] == pytest.approx(found["bytes"], rel=1e-3)
