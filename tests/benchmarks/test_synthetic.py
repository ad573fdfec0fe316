"""What checking a large model needs in memory does not grow with the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def measured(output: Path, gigabytes: float) -> dict[str, dict[str, dict[str, float]]]:
    command = [sys.executable, "benchmarks/synthetic.py", "--gigabytes", str(gigabytes)]
    command += ["--shape", "1024", "1024", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300, capture_output=True)
    return json.loads(output.read_text())


def test_four_times_the_model_takes_no_more_memory(tmp_path: Path) -> None:
    small, large = (measured(tmp_path / f"{size}.json", size) for size in (0.064, 0.256))

    for kind in ("finetune", "int8"):
        for check in ("verify", "prove"):
            before, after = small[kind][check]["peak"], large[kind][check]["peak"]
            assert after - before < 40e6, (kind, check)
            # fewer than two matrices of 4 MB and what torch itself takes
            assert after < 400e6, (kind, check)
