from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_runs_and_writes_every_competitor(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("training", "--smoke", "--output", str(output))

    result = json.loads(output.read_text())
    for mode in ("full", "lora"):
        assert set(result["summary"][mode]) == {
            "trainer",
            "trainer_tuned",
            "bare",
            "bare_torch",
            "reuselib",
            "fraction_of_matrix_peak",
        }
    assert set(result["precision"]) == {"trainer", "others"}
    assert str(Path.home()) not in output.read_text()
