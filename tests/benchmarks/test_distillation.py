from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_runs_and_writes_every_way_to_learn(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("distillation", "--smoke", "--output", str(output))

    result = json.loads(output.read_text())
    assert set(result["summary"]) == {"plain", "logits", "hidden", "relations"}
    assert result["summary"]["plain"]["plain_is_faster_by"]["median"] == 1.0
    assert all(asked["lesson_bytes"] > 0 for asked in result["asking"].values())
    assert str(Path.home()) not in output.read_text()
