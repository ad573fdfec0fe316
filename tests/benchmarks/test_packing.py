from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_trains_on_the_same_texts_each_way(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("packing", "--smoke", "--rounds", "1", "--steps", "2", "--output", str(output))

    runs = {name: each[0] for name, each in json.loads(output.read_text())["runs"].items()}
    for one, other in (("padded", "packed"), ("grouped", "grouped_packed")):
        assert abs(runs[one]["loss"] - runs[other]["loss"]) < 1e-4 * runs[one]["loss"]
    assert runs["packed"]["filled"] > runs["padded"]["filled"]
