"""Benchmarks are run in this process where nothing of a process is measured: one of their own imports for seconds."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs one of `benchmarks/` by name, with arguments as on its command line."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))  # for processes that it starts

    def run(name: str, *arguments: str) -> None:
        # by its path: several have the name of a module that is imported already
        spec = importlib.util.spec_from_file_location(
            f"{name}_benchmark", ROOT / "benchmarks" / f"{name}.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "default"
            )  # it runs others' trainers, which warn of their own ways
            module.main(arguments)

    return run
