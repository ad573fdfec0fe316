from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_tells_what_each_part_of_the_record_costs(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("lineage_cost", "--smoke", "--output", str(output))

    result = json.loads(output.read_text())
    assert {"pinning parents", "rows", "record", "trail"} <= set(result["parts"])
    assert all(seconds > 0 for seconds in result["parts"].values())
    assert 0 < sum(result["parts"].values()) < result["total"]
    assert 0 < result["measuring"] < result["total"]
    assert [each["steps"] for each in result["trainings"]] == [8, 8]
    assert all(0 < each["trail_seconds"] < each["seconds"] for each in result["trainings"])
    assert str(Path.home()) not in output.read_text()
