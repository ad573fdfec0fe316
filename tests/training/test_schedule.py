from __future__ import annotations

import pytest
import torch

from reuselib.errors import TrainingError
from reuselib.training.plan import Schedule
from reuselib.training.schedule import factor, num_warmup_steps


@pytest.mark.parametrize("warmup", [0.0, 3.0, 0.25])
@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_factors_are_those_of_transformers(kind: str, warmup: float) -> None:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule(lr_scheduler_type=kind, warmup_steps=warmup)
    steps = num_warmup_steps(schedule, 20)
    name = "constant_with_warmup" if kind == "constant" else kind
    reference = get_scheduler(name, optimizer, num_warmup_steps=steps, num_training_steps=20)

    for step in range(20):
        assert factor(schedule, step, 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_a_share_of_steps_is_rounded_up() -> None:
    assert num_warmup_steps(Schedule(warmup_steps=0.1), 25) == 3
    assert num_warmup_steps(Schedule(warmup_steps=1.0), 25) == 1


@pytest.mark.parametrize("value", [-1.0, 2.5, float("nan"), float("inf"), 26.0])
def test_impossible_warm_up_is_refused(value: float) -> None:
    with pytest.raises(TrainingError, match="warmup_steps is"):
        num_warmup_steps(Schedule(warmup_steps=value), 25)
