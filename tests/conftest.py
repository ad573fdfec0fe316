"""What every test gets: a store of its own, and no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from reuselib.measure import latency
from reuselib.training import precision

# The same cases in every run, and no clock: machines that run tests are busy.
settings.register_profile("reuselib", deadline=None, derandomize=True)
settings.load_profile("reuselib")

# Read by the libraries when they are imported, so before any test.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault(
    "GOMP_SPINCOUNT", "1000"
)  # two test processes share the cores, see `cli.main`

# No test asserts a time, so a few calls of each model are enough.
latency.STANDARD = latency.Protocol(seconds=0.01, rounds=3, warm_up=1, attempts=1)

# Some machines multiply bf16, and would train in it; what tests compare holds for fp32. See `native_precision`.
multiplies_bf16 = precision.multiplies_bf16
precision.multiplies_bf16 = lambda device: False

SENSES = """\
base: {source: ./somewhere}
task: text_classification
data: {source: "sample:senses"}
steps:
  - lora: {r: 4, fit: {epochs: 2, learning_rate: 1e-3}}
  - merge
"""


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REUSELIB_STORE", str(tmp_path / "own-store"))


@pytest.fixture
def native_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """`precision: auto` is what this machine makes of it."""
    monkeypatch.setattr(precision, "multiplies_bf16", multiplies_bf16)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe that can be read; its base is not there."""
    path = tmp_path / "recipe.yaml"
    path.write_text(SENSES, encoding="utf-8")
    return path


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a package made of one module, with entry points, for the length of a test."""

    def install(name: str, code: str, entry_points: str) -> None:
        site = tmp_path / f"site-{name}"
        record = site / f"{name}-1.0.dist-info"
        record.mkdir(parents=True)
        (site / f"{name}.py").write_text(code, encoding="utf-8")
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(str(site))

    return install
