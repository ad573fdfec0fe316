from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_runs_and_writes_ratios_and_limits(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("quantization", "--smoke", "--output", str(output))

    result = json.loads(output.read_text())
    assert set(result["batches"]) == {"2 x 8", "1 x 8"}
    for batch in result["batches"].values():
        assert {"fp32", "reuselib", "reuselib_tensor"} <= set(batch["faster_by"])
        assert batch["change_of_outputs"]["fp32"] == 0
        assert 0 < batch["change_of_outputs"]["reuselib"] < 0.1
        assert all(each["int8"] > 0 for each in batch["products"].values())
    assert str(Path.home()) not in output.read_text()
