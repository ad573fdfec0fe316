from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toys import Points, Tokens, network, points, tagger, token_rows

from reuselib.errors import DataError, TrainingError
from reuselib.progress import Progress
from reuselib.training import precision as training_precision
from reuselib.training.batching import plan_batches
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import (
    EarlyStopping,
    FitPlan,
    Optimizer,
    ParameterGroup,
    Schedule,
)

ROWS = token_rows(50)
SOURCES = Path(__file__).parents[2] / "src"


def by_hand(module: nn.Module, rows: list, plan: FitPlan, seed: int) -> nn.Module:
    """The same training, written out: one whole batch a step, plain AdamW, torch's clipping and casting."""
    task = Tokens()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in module.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=plan.learning_rate,
        foreach=False,
        fused=False,
    )
    num_steps = plan.epochs * -(-len(rows) // plan.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)
    module.train()
    for epoch in range(plan.epochs):
        for batch in plan_batches(
            [len(row["input_ids"]) for row in rows],
            len(rows),
            plan.batch_size,
            seed=seed,
            epoch=epoch,
        ):
            data = task.collate([rows[row] for row in batch], None)
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bf16"):
                output = module(data["input_ids"], data["attention_mask"]).float()
            nn.functional.cross_entropy(output.flatten(0, 1), data["labels"].flatten()).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return module


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_weights_are_those_of_a_loop_written_by_hand(accumulation: int) -> None:
    plan = FitPlan(
        epochs=2,
        batch_size=8,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-2,
        optimizer=Optimizer(weight_decay=0.1, max_grad_norm=0.5),
    )
    expected = by_hand(tagger(), ROWS, plan, seed=3)

    module = tagger()
    fit(module, plan, Job(task=Tokens(), processor=None, train=ROWS, seed=3))

    for name, value in expected.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_bf16_is_that_of_a_loop_written_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_precision, "multiplies_bf16", lambda device: True)
    optimizer = Optimizer(weight_decay=0.1, max_grad_norm=0.5)
    plan = FitPlan(
        epochs=2, batch_size=8, learning_rate=1e-2, precision="bf16", optimizer=optimizer
    )
    job = Job(task=Tokens(), processor=None, train=ROWS, seed=3)
    expected = by_hand(tagger(), ROWS, plan, seed=3)

    module, whole = tagger(), tagger()
    result = fit(module, plan, job)
    fit(whole, replace(plan, precision="fp32"), job)

    assert result.facts["precision"] == "bf16"
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(module.head.weight, whole.head.weight)


def test_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    def weights(seed: int) -> torch.Tensor:
        module = tagger(dropout=0.2)
        plan = FitPlan(epochs=2, batch_size=8, learning_rate=1e-2)
        fit(module, plan, Job(task=Tokens(), processor=None, train=ROWS, seed=seed))
        return nn.utils.parameters_to_vector(module.parameters())

    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    np.random.seed(7)

    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))


def test_the_callers_random_state_mode_and_flags_are_kept() -> None:
    module = tagger().eval()
    module.embedding.requires_grad_(False)
    random, frozen = torch.get_rng_state(), module.embedding.weight.clone()

    fit(module, FitPlan(epochs=1), Job(task=Tokens(), processor=None, train=ROWS))

    assert torch.equal(torch.get_rng_state(), random)
    assert not any(part.training for part in module.modules())
    assert not module.embedding.weight.requires_grad
    assert torch.equal(module.embedding.weight, frozen)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert "forward" not in module.__dict__


def test_max_steps_decides_over_epochs() -> None:
    result = fit(
        tagger(),
        FitPlan(epochs=1, max_steps=9, batch_size=8),
        Job(task=Tokens(), processor=None, train=ROWS),
    )

    assert result.metrics["num_steps"] == 9
    assert result.metrics["epochs"] == 2
    second = plan_batches([len(row["input_ids"]) for row in ROWS], 50, 8, seed=0, epoch=1)
    assert result.metrics["num_examples"] == 50 + sum(map(len, second[:2]))


def test_last_epochs_mean_loss_over_targets_is_reported() -> None:
    module = tagger()
    data = Tokens().collate(ROWS, None)
    with torch.no_grad():
        output = module(data["input_ids"], data["attention_mask"])
    expected = nn.functional.cross_entropy(output.flatten(0, 1), data["labels"].flatten()).item()

    plan = FitPlan(epochs=1, batch_size=8, learning_rate=1e-12)
    result = fit(module, plan, Job(task=Tokens(), processor=None, train=ROWS))

    assert result.metrics["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_groups_open_in_their_epoch_and_scale_the_learning_rate() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    groups = (
        ParameterGroup(("0.weight", "0.bias"), lr_scale=0.5, from_epoch=1),
        ParameterGroup(("2.weight",), lr_scale=0.0),
    )
    seen: list[bool] = []

    def objective(wrapped: nn.Module, batch: dict) -> torch.Tensor:
        seen.append(module[0].weight.requires_grad)
        return Points().loss(wrapped(batch["x"]), batch)

    plan = FitPlan(
        epochs=2,
        batch_size=16,
        learning_rate=1e-2,
        schedule=Schedule(lr_scheduler_type="constant"),
    )
    fit(
        module,
        plan,
        Job(task=Points(), processor=None, train=points(16), groups=groups, objective=objective),
    )

    assert seen == [False, True]
    assert module[0].weight.requires_grad
    assert torch.equal(module[2].weight, before["2.weight"])
    # The first step of Adam is as long as the learning rate, whatever the gradient.
    moved = (module[0].weight - before["0.weight"]).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 5e-3), rtol=1e-3, atol=0)


def test_early_stopping_brings_the_best_weights_back() -> None:
    rows = token_rows(40, seed=1)
    flipped = [{**row, "labels": (row["labels"] + 1) % 3} for row in rows]
    module = tagger()
    plan = FitPlan(
        epochs=20, batch_size=8, learning_rate=3e-2, early_stopping=EarlyStopping(patience=1)
    )
    reference = tagger()

    job = Job(task=Tokens(), processor=None, train=rows, validation=flipped)
    result = fit(module, plan, job)

    # Learning makes it worse from the first epoch on, so the best weights are those after epoch 0.
    assert result.metrics["best_epoch"] == 0
    assert result.metrics["epochs"] == 3
    schedule = FitPlan(
        epochs=20, batch_size=8, learning_rate=3e-2, early_stopping=EarlyStopping(patience=0)
    )
    fit(reference, schedule, job)
    assert torch.equal(module.head.weight, reference.head.weight)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_rows() -> None:
    rows = points(32)
    rows[13]["x"] = np.array([np.nan, 1.0], dtype=np.float32)
    batches = plan_batches(None, 32, 8, seed=0, epoch=0)
    step = next(at for at, batch in enumerate(batches) if 13 in batch)

    with pytest.raises(TrainingError, match=rf"loss is nan at optimizer step {step} .*13"):
        fit(network(), FitPlan(batch_size=8), Job(task=Points(), processor=None, train=rows))


def test_a_gradient_that_is_not_finite_stops_the_run_though_the_loss_is() -> None:
    def objective(module: nn.Module, batch: dict) -> torch.Tensor:
        return (module(batch["x"]) * 0).pow(0.5).sum()

    job = Job(task=Points(), processor=None, train=points(8), objective=objective)
    with pytest.raises(TrainingError, match=r"norm of the gradient is nan at optimizer step 0"):
        fit(network(), FitPlan(), job)


def test_weights_that_break_in_the_last_step_are_noticed() -> None:
    def objective(module: nn.Module, batch: dict) -> torch.Tensor:
        return (module(batch["x"]) * 0).pow(0.5).sum()

    plan = FitPlan(max_steps=1, optimizer=Optimizer(max_grad_norm=None))
    job = Job(task=Points(), processor=None, train=points(8), objective=objective)
    with pytest.raises(TrainingError, match="not finite after optimizer step 0"):
        fit(network(), plan, job)


def test_statistics_of_frozen_normalisation_stay_while_others_move() -> None:
    module = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    module[1].requires_grad_(False)
    frozen = module[1].running_mean.clone()

    fit(module, FitPlan(epochs=1), Job(task=Points(), processor=None, train=points(32)))

    assert torch.equal(module[1].running_mean, frozen)
    assert not torch.equal(module[2].running_mean, torch.zeros(4))


def test_progress_is_reported_after_each_step() -> None:
    reports: list[Progress] = []

    job = Job(task=Points(), processor=None, train=points(20), report=reports.append)
    fit(network(), FitPlan(epochs=2, batch_size=8), job)

    assert [report.done for report in reports] == [1, 2, 3, 4, 5, 6]
    assert {report.total for report in reports} == {6}
    assert reports[0].detail.startswith("loss ")


def test_tensorboard_holds_loss_rate_and_validation(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plan = FitPlan(epochs=2, batch_size=8, early_stopping=EarlyStopping())
    job = Job(
        task=Points(),
        processor=None,
        train=points(16),
        validation=points(8, 1),
        trackers=("tensorboard",),
        logging_dir=tmp_path,
    )

    fit(network(), plan, job)

    events = accumulator.EventAccumulator(str(tmp_path / "reuselib")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert events.Scalars("train/learning_rate")[0].value == pytest.approx(5e-5)
    assert len(events.Scalars("validation/accuracy")) == 2


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (FitPlan(epochs=0), "epochs is 0"),
        (FitPlan(batch_size=0), "batch_size is 0"),
        (FitPlan(learning_rate=float("nan")), "learning_rate is nan"),
        (FitPlan(batch_size=8, gradient_accumulation_steps=3), "multiple of 3"),
        (FitPlan(early_stopping=EarlyStopping()), "needs validation rows"),
        (FitPlan(schedule=Schedule(warmup_steps=99)), "has 3 steps"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(plan: FitPlan, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        fit(network(), plan, Job(task=Points(), processor=None, train=points(8)))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (ParameterGroup(("0.wieght",)), "such as '0.weight'"),
        (ParameterGroup(("0.weight",), from_epoch=3), "would never learn"),
    ],
)
def test_a_group_without_effect_is_refused(group: ParameterGroup, message: str) -> None:
    job = Job(task=Points(), processor=None, train=points(8), groups=(group,))
    with pytest.raises(TrainingError, match=message):
        fit(network(), FitPlan(), job)


def test_nothing_to_train_and_no_rows_are_errors() -> None:
    with pytest.raises(TrainingError, match="nothing to train"):
        fit(
            network().requires_grad_(False),
            FitPlan(),
            Job(task=Points(), processor=None, train=points(8)),
        )
    with pytest.raises(DataError, match="no rows"):
        fit(network(), FitPlan(), Job(task=Points(), processor=None, train=[]))


TWO = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from toys import Tokens, tagger, token_rows
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import EarlyStopping, FitPlan, ParameterGroup
module = tagger()
# 50 rows in batches of 8: the last batch leaves a micro-batch of 2 rows to share.
plan = FitPlan(epochs=2, batch_size=8, gradient_accumulation_steps=2, learning_rate=1e-2,
               precision="fp32", early_stopping=EarlyStopping())
groups = (ParameterGroup(("embedding.weight",), from_epoch=1),)
with torch.no_grad():
    module.head.weight[:, ::2] = 0
job = Job(task=Tokens(), processor=None, train=token_rows(49), validation=token_rows(9, 1), groups=groups,
          sparse=("head.weight",))
result = fit(module, plan, job)
if result.facts["num_processes"] == 1 or torch.distributed.get_rank() == 0:
    torch.save([module.state_dict(), result.metrics, result.facts], sys.argv[1])
if torch.distributed.is_initialized():
    torch.distributed.barrier()  # none may go while another still talks to it
    torch.distributed.destroy_process_group()
"""


def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCES),
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    launchers = {
        1: [sys.executable],
        2: [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node=2",
            "--master_port=0",
            "--rdzv_backend=c10d",
            "--rdzv_endpoint=localhost:0",
        ],
    }
    results = {}
    for number, launcher in launchers.items():
        file = tmp_path / f"{number}.pt"
        command = [*launcher, str(script), str(file), str(Path(__file__).parent)]
        done = subprocess.run(
            command, env=environment, timeout=240, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        results[number] = torch.load(file)

    assert results[2][2]["num_processes"] == 2
    assert bool((results[2][0]["head.weight"][:, ::2] == 0).all())
    for name, value in results[1][0].items():
        torch.testing.assert_close(results[2][0][name], value, rtol=0, atol=1e-6, msg=name)
    for name in ("train_loss", "validation_loss"):
        assert results[2][1][name] == pytest.approx(results[1][1][name], rel=1e-5)
