from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_keeps_and_goes_on_each_way(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("checkpoints", "--smoke", "--rounds", "1", "--output", str(output))

    for told in json.loads(output.read_text())["modes"].values():
        assert all(told[name]["num_bytes"] > 0 for name in ("reuselib", "accelerate", "trainer"))
        assert told["reuselib"]["read_seconds"] > 0
