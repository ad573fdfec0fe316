from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from chains import text_chain


def test_the_benchmark_runs_and_proves_the_chain_it_times(
    tmp_path: Path, benchmark: Callable[..., None]
) -> None:
    output, store = tmp_path / "result.json", text_chain(tmp_path).store

    benchmark(
        "evidence", "--smoke", "--rounds", "1", "--store", str(store), "--output", str(output)
    )

    found = json.loads(output.read_text())
    assert found["digest"]["bytes"] >= 2**24
    assert found["trace"]["lines"] >= found["trace"]["models"] == 20
    assert found["chain"]["tier"] == "proven"
    assert len(found["chain"]["steps"]) == 3
    assert found["chain"]["peak_bytes"] > found["chain"]["largest_tensor_bytes"] > 0
