from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_runs_and_holds_every_chain_against_the_model_before(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output = tmp_path / "result.json"

    benchmark("compression", "--smoke", "--output", str(output))

    found = json.loads(output.read_text())["data"]["tiny"]
    assert set(found) == {"tuned", "int8", "int8_token", "ffn", "whole"}
    for name in ("int8", "int8_token", "ffn", "whole"):
        lost = found[name]["points_lost"]
        assert lost["low"] <= lost["mean"] <= lost["high"]
        assert set(found[name]["faster_by"]) == {"batch 32", "batch 1"}
        assert 0 < found[name]["bytes_ratio"] < 1
    # of the tiny network: three layers in four of attention stay whole, and half of the feed-forward part goes
    assert found["ffn"]["flops_ratio"] > 1.2
