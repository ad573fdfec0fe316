from __future__ import annotations

import os
import re

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from toys import Points, network, points

from reuselib.errors import MissingExtra, TrainingError
from reuselib.training.accelerating import opened, prepared, settings
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import FitPlan

STATES = (AcceleratorState, GradientState, PartialState)


@pytest.fixture(autouse=True)
def _clean() -> object:
    for state in STATES:
        state._shared_state.clear()
    yield
    for state in STATES:
        state._shared_state.clear()


def test_no_state_is_left_behind_even_after_an_error() -> None:
    fit(network(), FitPlan(epochs=1), Job(task=Points(), processor=None, train=points(8)))
    assert [dict(state._shared_state) for state in STATES] == [{}, {}, {}]

    with pytest.raises(RuntimeError, match="on purpose"), opened("fp32"):
        raise RuntimeError("on purpose")
    assert [dict(state._shared_state) for state in STATES] == [{}, {}, {}]


def test_the_callers_accelerator_works_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Accelerator(gradient_accumulation_steps=4, cpu=True)

    with opened("fp32") as ours:
        assert ours.gradient_accumulation_steps == 1

    assert theirs.gradient_accumulation_steps == 4
    assert theirs.mixed_precision == "no"
    assert theirs.device.type == "cpu"
    assert Accelerator().state.__dict__ is theirs.state.__dict__


def test_the_environments_accumulation_is_not_applied_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "7")

    with opened("fp32") as accelerator:
        assert accelerator.gradient_accumulation_steps == 1


def test_a_sharding_setup_is_refused_in_words() -> None:
    Accelerator(cpu=True)
    AcceleratorState._shared_state["distributed_type"] = DistributedType.DEEPSPEED

    with pytest.raises(TrainingError, match="set up for DEEPSPEED"), opened("fp32"):
        pass

    assert AcceleratorState._shared_state["distributed_type"] is DistributedType.DEEPSPEED


@pytest.mark.parametrize(
    ("configured", "words"),
    [
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "HYBRID_SHARD"},
            "version 1 with HYBRID_SHARD.*FULL_SHARD",
        ),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "fp16"},
            "mixed_precision: fp16",
        ),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron.*fsdp_version: 2"),
        (
            {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
            },
            "parallelism over tensors",
        ),
    ],
)
def test_a_configuration_that_is_not_trained_with_is_refused_before_accelerate_sees_it(
    monkeypatch: pytest.MonkeyPatch, configured: dict[str, str], words: str
) -> None:
    for name, value in configured.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(TrainingError) as refused, opened("fp32"):
        pass

    assert re.search(words, str(refused.value), re.DOTALL)
    assert [dict(state._shared_state) for state in STATES] == [{}, {}, {}]


def test_accelerate_does_not_see_a_configuration_for_deepspeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would want the package, or hand the training over."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")

    with opened("fp32") as accelerator:
        assert accelerator.distributed_type is DistributedType.NO
        assert accelerator.state.deepspeed_plugins is None

    assert os.environ["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert "ACCELERATE_USE_FSDP" not in os.environ


def test_a_configuration_that_contradicts_the_recipe_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "0.3")

    with pytest.raises(TrainingError, match=r"gradient_clipping: 0.3.*max_grad_norm: 1"):
        fit(network(), FitPlan(epochs=1), Job(task=Points(), processor=None, train=points(8)))


def test_an_accelerator_with_the_first_fsdp_is_refused() -> None:
    AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(fsdp_version=1)

    with pytest.raises(TrainingError, match="FSDP version 1 in this process"), opened("fp32"):
        pass


def test_unknown_and_missing_trackers_are_refused() -> None:
    with (
        pytest.raises(TrainingError, match="unknown tracker 'tensorbord'"),
        opened("fp32", ["tensorbord"]),
    ):
        pass
    from accelerate.tracking import get_available_trackers

    if "aim" not in {tracker.value for tracker in get_available_trackers()}:
        with pytest.raises(MissingExtra, match="'aim' is not installed"), opened("fp32", ["aim"]):
            pass


def test_a_prepared_module_is_itself_again() -> None:
    module = nn.Linear(2, 2)
    before = dict(module.__dict__)

    with opened("fp32") as accelerator, prepared(accelerator, module):
        pass

    assert module.__dict__ == before


def test_settings_are_flat_and_plain() -> None:
    flat = settings(FitPlan())

    assert flat["optimizer.max_grad_norm"] == 1.0
    assert flat["schedule.lr_scheduler_type"] == "linear"
    assert all(isinstance(value, (bool, int, float, str)) for value in flat.values())
