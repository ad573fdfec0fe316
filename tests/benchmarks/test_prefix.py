from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_trains_the_same_weights_each_way(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("prefix", "--smoke", "--output", str(output))

    found = json.loads(output.read_text())["found"]
    assert set(found) == {"head", "blocks"}
    for each in found.values():
        assert all(said.startswith("before ") for said in each["cache"])
        assert each["largest_difference"] < 1e-5
