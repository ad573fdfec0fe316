from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toys import Points, Tokens, points, tagger, token_rows

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.trail import Trail
from reuselib.training.fitting import fit
from reuselib.training.job import FitResult, Job
from reuselib.training.plan import (
    EarlyStopping,
    FitPlan,
    Optimizer,
    ParameterGroup,
    Schedule,
)
from reuselib.training.replay import Replay, Stopped
from reuselib.training.state import Keeper, State, read_state, write_state

ROWS = token_rows(50)
PLAN = FitPlan(
    epochs=3,
    batch_size=8,
    learning_rate=1e-2,
    optimizer=Optimizer(weight_decay=0.1),
    schedule=Schedule(lr_scheduler_type="cosine", warmup_steps=3),
)


class Stochastic(Tokens):
    """Draws from all generators, as augmentation may."""

    def collate(self, examples: Any, processor: object) -> Any:
        random.random(), np.random.normal(), random.gauss(0, 1)
        batch = super().collate(examples, processor)
        shift = int(np.random.randint(0, 2)) * int(random.random() > 0.5)
        return {**batch, "input_ids": (batch["input_ids"] + shift) % 50}


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)
    )


class Run:
    """One training, interrupted at each of its states."""

    def __init__(
        self,
        make: Callable[[], nn.Module],
        plan: FitPlan,
        folder: Path,
        num_states: int,
        **job: Any,
    ) -> None:
        self.make, self.plan, self.folder = make, plan, folder
        self.job = Job(**{"task": Tokens(), "processor": None, "train": ROWS, "seed": 3, **job})
        self.digests: dict[int, str] = {}
        self.module = make()
        self.result = self.fit(
            self.module, replace(self.job, keeper=Keeper(num_states, self.write))
        )
        assert self.result.trail is not None
        self.trail: Trail = self.result.trail

    def write(self, state: State) -> str:
        place = self.folder / str(state.step)
        place.mkdir()
        self.digests[state.step] = write_state(place, state)
        return self.digests[state.step]

    def fit(self, module: nn.Module, job: Job) -> FitResult:
        return fit(module, self.plan, job)

    def state(self, step: int) -> State:
        return read_state(self.folder / str(step), self.digests[step])

    def resumed(self, step: int) -> tuple[nn.Module, FitResult]:
        """The rest of the training, by a module that begins as the first did."""
        module = self.make()
        torch.manual_seed(99)
        replay = Replay(trail=self.trail, start=self.state(step))
        return module, self.fit(module, replace(self.job, replay=replay))


@pytest.mark.parametrize(
    ("make", "plan", "job"),
    [
        (lambda: tagger(dropout=0.3), PLAN, {}),
        (lambda: tagger(dropout=0.3), replace(PLAN, gradient_accumulation_steps=2), {}),
        (
            lambda: tagger(dropout=0.3),
            PLAN,
            {"groups": (ParameterGroup(names=("embedding.weight",), from_epoch=1, lr_scale=0.1),)},
        ),
        (lambda: tagger(dropout=0.3), replace(PLAN, max_steps=17), {"task": Stochastic()}),
        (
            lambda: tagger(dropout=0.3),
            replace(PLAN, early_stopping=EarlyStopping(patience=5)),
            {"validation": token_rows(20, seed=1)},
        ),
        (normalised, PLAN, {"task": Points(), "train": points(50)}),
    ],
    ids=[
        "dropout",
        "accumulation",
        "opened later",
        "all generators",
        "early stopping",
        "batch norm",
    ],
)
def test_going_on_from_a_state_gives_the_same_bits(make, plan, job, tmp_path):
    """Mid-epoch (5), at the end of an epoch (7, 14), and everywhere else."""
    whole = Run(make, plan, tmp_path, 100, **job)
    steps = {1, 5, 7, 14, whole.trail.num_steps - 1} & set(whole.digests)
    assert len(steps) >= 4

    for step in sorted(steps):
        module, result = whole.resumed(step)
        for name, value in whole.module.state_dict().items():
            assert torch.equal(module.state_dict()[name], value), (step, name)
        changing = ("seconds", "examples_per_second")
        assert {k: v for k, v in result.metrics.items() if k not in changing} == {
            k: v for k, v in whole.result.metrics.items() if k not in changing
        }
        assert result.trail is not None
        later = [entry for entry in whole.trail.entries if entry.step > step]
        assert [replace(entry, kept="") for entry in later] == list(result.trail.entries)


def test_states_are_spread_evenly(tmp_path):
    assert Keeper(3, lambda _: "").steps(100) == {25, 50, 75}
    assert Keeper(1, lambda _: "").steps(9) == {4}
    assert Keeper(50, lambda _: "").steps(4) == {1, 2, 3}
    assert Keeper(5, lambda _: "").steps(1) == frozenset()


def test_a_kept_state_is_bound_by_the_trail(tmp_path):
    run = Run(tagger, PLAN, tmp_path, 2)

    assert run.digests.keys() == {7, 14}
    assert {entry.step: entry.kept for entry in run.trail.kept} == run.digests


def test_keeping_states_changes_no_weight(tmp_path):
    kept = Run(lambda: tagger(dropout=0.3), PLAN, tmp_path, 4)
    plain = tagger(dropout=0.3)
    fit(plain, PLAN, Job(task=Tokens(), processor=None, train=ROWS, seed=3))

    for name, value in plain.state_dict().items():
        assert torch.equal(kept.module.state_dict()[name], value)


def test_a_replay_stops_where_it_is_told_to(tmp_path):
    run = Run(tagger, PLAN, tmp_path, 2)
    module = tagger()
    replay = Replay(trail=run.trail, start=run.state(7), stop=14)

    with pytest.raises(Stopped) as stopped:
        fit(module, PLAN, replace(run.job, replay=replay))

    later = [replace(entry, kept="") for entry in run.trail.entries if 7 < entry.step <= 14]
    assert list(stopped.value.trail.entries) == later
    assert torch.equal(module.embedding.weight, run.state(14).tensors["weights.embedding.weight"])
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_a_changed_state_is_refused(file, tmp_path):
    run = Run(tagger, PLAN, tmp_path, 1)
    path = tmp_path / "10" / file
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)

    with pytest.raises(IntegrityError, match="DIGEST_MISMATCH"):
        run.state(10)


def test_a_missing_state_is_said(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        read_state(tmp_path / "5", "0" * 64)


def test_a_state_of_another_network_is_refused(tmp_path):
    run = Run(tagger, PLAN, tmp_path, 1)
    other = replace(run.job, task=Points(), train=points(50))
    replay = Replay(trail=run.trail, start=run.state(10))

    with pytest.raises(IntegrityError, match="BAD_STATE"):
        fit(normalised(), PLAN, replace(other, replay=replay))


def changed(state: State, **tensors: Any) -> State:
    return replace(state, tensors={**state.tensors, **tensors})


@pytest.mark.parametrize(
    "change",
    [
        lambda s: changed(s, **{"weights.head.bias": torch.zeros(4)}),
        lambda s: changed(s, **{"weights.head.bias": torch.zeros(3, dtype=torch.float64)}),
        lambda s: changed(s, **{"weights.more": torch.zeros(1)}),
        lambda s: changed(s, **{"optimizer.exp_avg.more": torch.zeros(1)}),
        lambda s: changed(s, **{"optimizer.exp_avg.head.bias": torch.zeros(7)}),
        lambda s: changed(s, **{"random.torch": torch.zeros(3, dtype=torch.uint8)}),
        lambda s: changed(s, **{"random.python": torch.zeros(3, dtype=torch.int64)}),
        lambda s: replace(s, tensors={k: v for k, v in s.tensors.items() if k != "loss_sum"}),
        lambda s: replace(s, random={}),
        lambda s: replace(s, random={"numpy": [1], "python": "x"}),
        lambda s: replace(s, step=0),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, tmp_path):
    run = Run(tagger, PLAN, tmp_path, 1)
    replay = Replay(trail=run.trail, start=change(run.state(10)))

    with pytest.raises(IntegrityError, match="BAD_STATE"):
        fit(tagger(), PLAN, replace(run.job, replay=replay))


@pytest.mark.parametrize(
    "values", [{"state": 2}, {"more": 1}, {"step": "5"}, {"numTargets": []}, {"best": 3}]
)
def test_a_description_is_read_strictly(values: Mapping[str, Any], tmp_path):
    import hashlib

    Run(tagger, PLAN, tmp_path, 1)
    path = tmp_path / "10" / "state.json"
    text = json.dumps({**json.loads(path.read_text()), **values}).encode()
    path.write_bytes(text)

    with pytest.raises(IntegrityError):
        read_state(tmp_path / "10", hashlib.sha256(text).hexdigest())
