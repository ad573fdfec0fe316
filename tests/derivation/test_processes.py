"""Whole derivations in 1, 2 and 3 processes, on CPU; each number of processes is started once for all tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from crew import work

from reuselib.adapter import Adapter, ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.calibration.plan import Calibration
from reuselib.derivation.company import fingerprint
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.tensors import Tensors
from reuselib.recipe import Recipe
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.bench import SHORT
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_bert
from reuselib.testing.world import compare
from reuselib.training.lessons import Losses
from reuselib.training.plan import EarlyStopping, FitPlan

FIT = FitPlan(epochs=2, batch_size=10, gradient_accumulation_steps=2, learning_rate=1e-3)
"""No number of processes divides its batches of 10 evenly, and the last one of each epoch is short."""
ROWS = Calibration(num_rows=48)

TRAINED: dict[str, Adapter] = {
    "finetune": FineTune(fit=FitPlan(**{**vars(FIT), "early_stopping": EarlyStopping()})),
    "lora": LoRA(r=2, lora_dropout=0.0, fit=FIT),
    "distil": Distill(losses=Losses(logits=0.5, task=0.5), fit=FIT),
    # Four steps: a sum that differs in its last bit now and then rounds an activation to its other neighbour, and
    # fourteen steps made 6e-6 of that.
    "qat": Quantize(fit=SHORT),
}
CALIBRATED: dict[str, Adapter] = {
    "gptq": Quantize(method="gptq", calibration=ROWS),
    "awq": Quantize(scheme="int4-weight", group_size=16, method="awq", calibration=ROWS),
    "smoothquant": Quantize(smooth=0.5, calibration=ROWS),
    "wanda": Sparsify(sparsity=0.5, method="wanda", calibration=ROWS),
    "sparsegpt": Sparsify(sparsity=0.5, method="sparsegpt", calibration=ROWS),
    "taylor": Prune(ffn=0.5, importance="taylor", calibration=ROWS),
}
STEPS = {**TRAINED, **CALIBRATED}

MAY_DIFFER = {
    "world size": ("buildDefinition", "internalParameters", "worldSize"),
    "threads": ("buildDefinition", "internalParameters", "facts", "num_threads"),
    "start": ("runDetails", "metadata", "startedOn"),
    "end": ("runDetails", "metadata", "finishedOn"),
    "invocation": ("runDetails", "metadata", "invocationId"),
    "digests of trail, figures and environment": ("runDetails", "byproducts"),
}
"""In the records of two numbers of processes, besides digests of the weights."""


PAIRS = [(name, size) for size in (2, 3) for name in (TRAINED if size == 3 else STEPS)]


def steps(size: int) -> list[str]:
    """What is done in so many processes: three of them only train, for the sake of time."""
    return list(TRAINED if size == 3 else STEPS)


class Crews:
    """What each number of processes made of the recipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = tiny_bert(folder / "base", head=True)
        config = json.loads((base / "config.json").read_text())
        calm = {k: 0.0 if "dropout" in k and v else v for k, v in config.items()}
        (base / "config.json").write_text(json.dumps(calm))
        data = write_rows(folder / "rows")
        self.recipes = {
            name: Recipe(
                base=ModelRef(str(base)), task=TextClassification(), data=data, steps=(step,)
            )
            for name, step in STEPS.items()
        }
        self._told = cache(self._start)

    def store(self, size: int) -> Path:
        """Started when it is first asked for; a failure is told to every test."""
        code, told = self._told(size)
        assert code == 0, told
        return self.folder / f"store-{size}"

    def _start(self, size: int) -> tuple[int, str]:
        store, job = self.folder / f"store-{size}", self.folder / f"job-{size}.json"
        recipes = [self.recipes[name].to_yaml() for name in steps(size)]
        job.write_text(json.dumps({"recipes": recipes, "store": str(store)}))
        code = (
            "import sys\nfrom reuselib.training.launch import launch\n"
            f"command = [sys.executable, {str(Path(__file__).with_name('crew.py'))!r}, {str(job)!r}]\n"
            f"sys.exit(launch(command, {size}, cpu=True))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return done.returncode, done.stderr[-3000:]

    def child(self, name: str, size: int) -> Path:
        ids = self.note(size)["ids"][steps(size).index(name)]
        return self.store(size) / "models" / ids[-1]

    def note(self, size: int, rank: int = 0) -> dict[str, Any]:
        return json.loads((self.store(size) / f"note-{rank}.json").read_text())


@pytest.fixture(scope="module")
def crews(tmp_path_factory: pytest.TempPathFactory) -> Crews:
    return Crews(tmp_path_factory.mktemp("crews"))


def tensors(folder: Path) -> dict[str, Any]:
    found = Tensors(folder)
    return {name: found[name] for name in found}


pytestmark = pytest.mark.xdist_group("crews")


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", TRAINED)
def test_training_ends_in_the_same_weights(name, size, crews):
    compare(tensors(crews.child(name, 1)), tensors(crews.child(name, size)), size)


@pytest.mark.parametrize("name", CALIBRATED)
def test_what_looks_at_rows_without_training_is_the_same_bit_for_bit(name, crews):
    one, other = crews.child(name, 1), crews.child(name, 2)

    assert Manifest.read(one).digests == Manifest.read(other).digests


@pytest.mark.parametrize(("name", "size"), PAIRS)
def test_records_differ_in_nothing_but_what_is_named_here(name, size, crews):
    one, other = (record(crews.child(name, each)) for each in (1, size))

    differing = set(different(one, other))

    assert {path for path in differing if not _may_differ(path)} == set()
    trained = ("buildDefinition", "internalParameters", "worldSize")
    assert (trained in differing) == (name in TRAINED)


@pytest.mark.parametrize(("name", "size"), PAIRS)
def test_figures_on_the_test_rows_are_the_same(name, size, crews):
    one, other = (figures(crews.child(name, each)) for each in (1, size))

    assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_all_processes_end_with_the_same_children(size, crews):
    ids = [crews.note(size, rank)["ids"] for rank in range(size)]

    assert all(each == ids[0] for each in ids)
    assert ids[0] == crews.note(1)["ids"][: len(ids[0])]


@pytest.mark.parametrize("size", [2, 3])
def test_rows_are_encoded_by_the_first_process_only(size, crews):
    alone, together = (crews.note(each, 0)["encoded"] for each in (1, size))
    assert together == alone[: len(together)]
    for rank in range(1, size):
        assert crews.note(size, rank)["encoded"] == []


@pytest.mark.parametrize("size", [1, 2, 3])
def test_nothing_unfinished_is_left(size, crews):
    assert list((crews.store(size) / "tmp").iterdir()) == []


def test_one_process_of_a_launcher_is_a_plain_run(crews, tmp_path):
    job = tmp_path / "job.json"
    recipe = crews.recipes["gptq"].to_yaml()
    (tmp_path / "store").mkdir()
    job.write_text(json.dumps({"recipes": [recipe], "store": str(tmp_path / "store")}))

    from reuselib.tasks.text_classification import TextClassification as Task

    encode = Task.encode
    try:
        work(job, "0")
    finally:
        Task.encode = encode

    (child,) = (tmp_path / "store/models").iterdir()
    assert Manifest.read(child).digests == Manifest.read(crews.child("gptq", 1)).digests


def test_a_fingerprint_tells_plans_apart(crews, tmp_path):
    plans = [each.plan(store=tmp_path) for each in crews.recipes.values()]

    assert len({fingerprint(each) for each in plans}) == len(plans)
    again = crews.recipes["lora"].plan(store=tmp_path / "other")
    assert fingerprint(again) == fingerprint(plans[list(STEPS).index("lora")])


def test_a_killed_process_ends_the_run_and_the_next_one_ends_in_the_same_child(crews, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(crews.recipes["lora"].to_yaml())
    command = [sys.executable, "-m", "reuselib", "run", str(recipe), "--processes", "2"]
    command += ["--store", str(tmp_path / "store")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    victim = _until(lambda: _child_of_rank(process.pid, 1))

    os.kill(victim, signal.SIGKILL)
    _, told = process.communicate(timeout=120)

    assert process.returncode == 128 + signal.SIGKILL
    assert "process 1 was ended by SIGKILL" in told
    assert "Traceback" not in told
    assert "bug in reuselib" not in told
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=240)
    assert done.returncode == 0
    (child,) = (tmp_path / "store/models").iterdir()
    compare(tensors(child), tensors(crews.child("lora", 2)), 2)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "lineage/manifest.json").read_text())["predicate"]


def figures(folder: Path) -> dict[str, float]:
    told = json.loads((folder / "lineage/metrics.json").read_text())
    return {**told["after"], **told["quality"]}


def different(one: Any, other: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [
            each
            for name in names
            for each in different(one.get(name), other.get(name), (*path, name))
        ]
    return [] if one == other else [path]


def _may_differ(path: tuple[str, ...]) -> bool:
    return any(path[: len(known)] == known for known in MAY_DIFFER.values())


def _child_of_rank(parent: int, rank: int) -> int | None:
    """The process of that rank, once it has got as far as torch."""
    try:
        pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in pids:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            loaded = "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text()
            if b"RANK=%d" % rank in environment and loaded:
                return int(pid)
    except OSError:
        pass
    return None


def _until(find: Callable[[], int | None]) -> int:
    end = time.monotonic() + 120
    while (found := find()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return found
