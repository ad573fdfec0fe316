"""What the benchmarks share: taking turns, the machine's limits, and results with the machine they hold for."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def in_turns(
    actions: Mapping[str, Callable[[], object]], *, rounds: int, calls: int = 1, warm_up: int = 3
) -> dict[str, list[float]]:
    """Seconds for one call of each action, `rounds` times, each round in another order.

    Args:
        actions: what to time, by name.
        rounds: how often each has its turn.
        calls: calls in one turn; a turn counts as their median.
        warm_up: calls of each before anything counts.
    """
    for action in actions.values():
        for _ in range(warm_up):
            action()
    names, seconds = list(actions), {name: [] for name in actions}
    for turn in range(rounds):
        for at in range(len(names)):
            name = names[(at + turn) % len(names)]
            seconds[name].append(statistics.median(_timed(actions[name]) for _ in range(calls)))
    return seconds


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def faster_by(reference: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """By how much `ours` is faster: the ratio of each round, and their median."""
    ratios = [theirs / own for theirs, own in zip(reference, ours, strict=True)]
    return {"median": statistics.median(ratios), "ratios": ratios}


def matrix_peak(dtype: torch.dtype, *, smoke: bool = False) -> float:
    """The best rate of a large matrix product, in operations per second; of a small one, to see that it works."""
    best = 0.0
    for size in (64,) if smoke else (1024, 2048, 3072):
        left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        for _ in range(6):
            began = time.perf_counter()
            left @ right
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def machine(*packages: str) -> dict[str, Any]:
    """What the figures hold for: processor, threads, and the versions of those packages that are installed."""
    from reuselib.lineage.environment import environment

    versions = {}
    for name in ("torch", "transformers", "numpy", *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "environment": environment(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "num_threads": torch.get_num_threads(),
        "versions": versions,
    }


def keep(result: Mapping[str, Any], name: str, output: Path | None = None) -> Path:
    """Write a result to `output`, or to the folder of results under that name and today's date."""
    path = output or RESULTS / f"{name}-{datetime.now(UTC):%Y-%m-%d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path
