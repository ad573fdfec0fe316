"""Trainings that are kept while they run, and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Tokens, tagger, token_rows

from reuselib.errors import IntegrityError, Interrupted, StoreError, TrainingError
from reuselib.lineage.checkpoints import Checkpoints, read
from reuselib.training import checkpointing
from reuselib.training.checkpointing import Saver
from reuselib.training.fitting import fit
from reuselib.training.interruption import Interruption
from reuselib.training.job import FitResult, Job
from reuselib.training.plan import EarlyStopping, FitPlan, ParameterGroup, Schedule
from reuselib.training.trail import Recorder

PLAN = FitPlan(
    epochs=3, batch_size=8, learning_rate=1e-2, schedule=Schedule(lr_scheduler_type="cosine")
)
"""7 steps an epoch."""
ID = "ab" * 32
TIMES = ("seconds", "examples_per_second")


@pytest.fixture(autouse=True)
def _steady_trail(monkeypatch):
    """How often there is an entry depends on the time that steps take; here it does not."""
    monkeypatch.setattr(Recorder, "_chosen", lambda self: 2)


class Run:
    """One training in one store, as often as it is called."""

    def __init__(self, store: Path, plan: FitPlan = PLAN, **job: Any) -> None:
        self.place, self.plan, self.told = Checkpoints(store, ID), plan, list[str]()
        made = {"task": Tokens(), "processor": None, "train": token_rows(50), "seed": 3, **job}
        self.job = Job(**made)

    def __call__(self, stop: int = -1, **saver: Any) -> tuple[torch.nn.Module, FitResult]:
        """Train, and be interrupted after a step."""
        self.interruption = interruption = Interruption()

        def report(progress: Any) -> None:
            if progress.done == stop:
                interruption.request(signal.SIGTERM)

        known = {"training": 0, "inputs": {"seed": 3}, "tell": self.told.append, **saver}
        keep = Saver(place=self.place, interruption=interruption, **known)
        module = tagger(dropout=0.3)
        return module, fit(module, self.plan, replace(self.job, report=report, saver=keep))


def assert_same(one: tuple[Any, FitResult], other: tuple[Any, FitResult]) -> None:
    for name, value in one[0].state_dict().items():
        assert torch.equal(other[0].state_dict()[name], value), name
    metrics = [{k: v for k, v in r.metrics.items() if k not in TIMES} for _, r in (one, other)]
    assert metrics[0] == metrics[1]
    assert one[1].trail == other[1].trail


SETTINGS = {
    "plain": (PLAN, {}),
    "accumulation": (replace(PLAN, gradient_accumulation_steps=2), {}),
    "all at once": (
        replace(PLAN, early_stopping=EarlyStopping(patience=5)),
        {
            "groups": (ParameterGroup(names=("embedding.weight",), from_epoch=1),),
            "validation": token_rows(20, seed=1),
        },
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_interrupted_training_ends_in_the_same_bits(name, tmp_path):
    """In the first step, mid-epoch, at the end of an epoch, after the warm-up of the trail, in the last step."""
    plan, job = SETTINGS[name]
    whole = Run(tmp_path / "whole", plan, **job)()
    for step in (1, 3, 7, 12, 14, 21):
        run = Run(tmp_path / str(step), plan, **job)
        with pytest.raises(Interrupted) as caught:
            run(stop=step)
        assert (caught.value.step, caught.value.num_steps) == (step, 21)
        assert caught.value.folder is not None

        assert_same(run(), whole)

        assert run.told[-1].startswith(f"resumed after step {step} of 21 (")


def test_it_may_be_interrupted_again_and_again(tmp_path):
    run = Run(tmp_path)
    for step in (2, 4, 5, 9, 15, 20):
        with pytest.raises(Interrupted):
            run(stop=step)

    assert_same(run(), Run(tmp_path / "whole")())
    assert len(run.told) == 6


def test_after_its_last_step_it_is_done(tmp_path):
    """Told to end in the last epoch's validation, say; what came of it is kept, and not computed again."""
    run = Run(tmp_path)
    whole = run(seconds=0.0)
    assert run.place.names() == ["0-end"]

    again = run(stop=1)  # no step is done, so nobody interrupts

    assert_same(again, whole)
    assert run.told[-1].startswith("had ended already, after step 21")
    assert again[1].metrics == whole[1].metrics


def test_seconds_add_up(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(Interrupted):
        run(stop=5)
    title, _ = read(run.place.folder / "0-5")
    folder = run.place.folder / "0-5"

    longer = replace(title, notes={**title.notes, "seconds": 1000.0})
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    with run.place.add(longer) as new:
        for name in ("state.json", "tensors.safetensors"):
            (new / name).write_bytes(files[name])

    assert run()[1].metrics["seconds"] > 1000.0


def test_the_newest_stay(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(Interrupted):
        run(stop=6, seconds=0.0, keep=3)

    assert run.place.names() == ["0-6", "0-5", "0-4"]


def test_one_that_is_damaged_is_passed_over_with_a_word(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(Interrupted):
        run(stop=6, seconds=0.0)
    path = run.place.folder / "0-6" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    assert_same(run(), Run(tmp_path / "whole")())

    assert run.told[0].startswith("checkpoint 0-6 is passed over: DIGEST_MISMATCH")
    assert run.told[1].startswith("resumed after step 5")


def test_in_another_environment_it_begins_anew_and_says_why(tmp_path, monkeypatch):
    run = Run(tmp_path)
    with pytest.raises(Interrupted):
        run(stop=5)
    monkeypatch.setattr(checkpointing, "versions", lambda: {"torch": "9.9"})

    assert_same(run(), Run(tmp_path / "whole")())

    assert "begins anew" in run.told[-1]
    assert f"versions.torch: {torch.__version__} there, 9.9 here" in run.told[-1]


def test_no_begins_anew_and_leaves_the_old_ones_until_it_writes(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(Interrupted):
        run(stop=9)

    with pytest.raises(Interrupted):
        run(stop=2, resume="no")

    assert run.told == []
    assert run.place.names() == ["0-2"]
    with pytest.raises(RuntimeError, match="before anything is written"):
        Run(tmp_path, attach=fail)(resume="no")
    assert run.place.names() == ["0-2"]


def fail(rows: Any) -> Any:
    raise RuntimeError("before anything is written")


def test_one_can_be_named(tmp_path):
    run = Run(tmp_path / "one")
    with pytest.raises(Interrupted) as caught:
        run(stop=9)

    other = Run(tmp_path / "other")
    assert_same(other(resume=caught.value.folder), Run(tmp_path / "whole")())
    assert other.told[0].startswith("resumed after step 9")


def test_one_of_another_run_is_refused_field_by_field(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(Interrupted) as caught:
        run(stop=2, inputs={"finetune": {"fit": {"learning_rate": 5e-5}}, "data": "a"})

    with pytest.raises(TrainingError, match="is of another run") as refused:
        run(resume=caught.value.folder, inputs={"finetune": {"fit": {"learning_rate": 1e-4}}})

    assert "\n  data: a there, nothing here" in refused.value.what
    assert "\n  finetune.fit.learning_rate: 5e-05 there, 0.0001 here" in refused.value.what


def test_a_damaged_one_that_was_named_is_refused(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(Interrupted) as caught:
        run(stop=2)
    (caught.value.folder / "state.json").unlink()

    with pytest.raises(IntegrityError, match="DIGEST_MISMATCH"):
        run(resume=caught.value.folder)


def test_a_disk_that_is_full_does_not_end_a_training(tmp_path, monkeypatch):
    run = Run(tmp_path)

    def full(self, title):
        raise StoreError("cannot write: no room")

    monkeypatch.setattr(Checkpoints, "add", full)

    assert_same(run(seconds=0.0), Run(tmp_path / "whole")())
    assert run.told[0] == "no checkpoint after step 1: cannot write: no room"
    with pytest.raises(Interrupted, match="could not be kept: cannot write: no room") as caught:
        run(stop=3)
    assert caught.value.folder is None


def test_checkpoints_are_written_in_time_but_never_cost_much(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    saver = Saver(place=Checkpoints(Path("x"), ID), training=0, inputs={}, seconds=10.0, cost=0.1)
    seen = []
    for now[0] in (4.9, 9.9, 10.0, 1e6):
        seen.append(saver.wishes()[0])
    assert seen == [False, False, True, True]

    saver.cost = 1.0  # 2 % of 50 seconds
    now[0] = 49.0
    assert not saver.wishes()[0]
    now[0] = 50.0
    assert saver.wishes()[0]
    saver.seconds = None
    assert not saver.wishes()[0]


def test_keeping_a_training_changes_no_weight(tmp_path):
    plain = tagger(dropout=0.3)
    result = fit(plain, PLAN, Run(tmp_path).job)

    assert_same(Run(tmp_path)(seconds=0.0), (plain, result))


TOGETHER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from accelerate.state import PartialState
from test_checkpointing import Run
from reuselib.errors import Interrupted
from reuselib.training.trail import Recorder

Recorder._chosen = lambda self: 2
rank = PartialState(cpu=True).process_index
folder = Path(sys.argv[2])
whole, told = Run(folder / "whole")(), []
for step in (1, 6, 21):
    batches = []

    def attach(rows):
        batches.append(rows)
        if rank == 1 and len(batches) == step:  # only one of them hears it
            run.interruption.request(15)
        return {}

    run = Run(folder / str(step), attach=attach)
    try:
        run()
    except Interrupted as error:
        told.append([error.step, error.folder is not None])
    again = run()
    told.append([torch.equal(a, b) for a, b in zip(again[0].parameters(), whole[0].parameters())])
    told.append(again[1].trail == whole[1].trail)
    told.append(run.told)
PartialState().wait_for_everyone()
(folder / f"{rank}.json").write_text(json.dumps(told))
"""


def test_several_processes_end_after_the_same_step_and_go_on_with_their_own_masks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TOGETHER)
    told = {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).parent), str(tmp_path)],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert not done.returncode, done.stderr[-3000:]

    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for rank, lines in enumerate((first, second)):
        steps = [lines[at : at + 4] for at in range(0, 12, 4)]
        assert [each[0][0] for each in steps] == [1, 6, 21]
        assert all(each[0][1] == (rank == 0) for each in steps)
        assert all(all(each[1]) and each[2] for each in steps)
    assert first[3][0].startswith("resumed after step 1 of 21")
    assert first[11][0].startswith("resumed after step 21 of 21")
