from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from chains import text_chain

ROOT = Path(__file__).parents[2]


def test_the_benchmark_runs_and_proves_the_chain_it_times(tmp_path: Path) -> None:
    output, store = tmp_path / "result.json", text_chain(tmp_path).store
    command = [sys.executable, "benchmarks/evidence.py", "--smoke", "--rounds", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    subprocess.run(
        [*command, "--store", str(store), "--output", str(output)],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )

    found = json.loads(output.read_text())
    assert found["digest"]["bytes"] >= 2**24
    assert found["trace"]["lines"] >= found["trace"]["models"] == 20
    assert found["chain"]["tier"] == "proven"
    assert len(found["chain"]["steps"]) == 3
    assert found["chain"]["peak_bytes"] > found["chain"]["largest_tensor_bytes"] > 0
