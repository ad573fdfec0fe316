from __future__ import annotations

import os

import pytest

from reuselib.errors import TrainingError
from reuselib.training.setups import carried_out, read_setup

SHARES = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO, FIRST = {"ACCELERATE_USE_DEEPSPEED": "true"}, {"ACCELERATE_USE_FSDP": "true"}


def effect(environment: dict[str, str]) -> dict[str, str]:
    """The variables as they are for accelerate."""
    changed = {**environment, **read_setup(environment).changes}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize("environment", [{}, SHARES, {"ACCELERATE_USE_DEEPSPEED": "false"}])
def test_what_is_done_as_it_is_asked_for_stays(environment: dict[str, str]) -> None:
    assert effect(environment) == environment
    assert read_setup(environment).remark == read_setup(environment).asked == ""


@pytest.mark.parametrize(("stage", "reshard"), [("1", "false"), ("2", "false"), ("3", "true")])
def test_stages_of_zero_are_shares(stage: str, reshard: str) -> None:
    environment = {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage}
    shares = {**SHARES, "FSDP_RESHARD_AFTER_FORWARD": reshard}
    offload = {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}

    assert effect(environment).items() >= (shares | {"FSDP_OFFLOAD_PARAMS": "false"}).items()
    assert effect(environment | offload)["FSDP_OFFLOAD_PARAMS"] == "true"
    assert "ACCELERATE_USE_DEEPSPEED" not in effect(environment)
    assert read_setup(environment).asked == f"deepspeed zero {stage}"


def test_stage_0_is_whole_copies() -> None:
    environment = {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}

    assert effect(environment) == {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}
    assert "whole copies" in read_setup(environment).remark


@pytest.mark.parametrize(
    ("said", "strategy", "reshard"),
    [
        ({}, "full_shard", "true"),
        ({"FSDP_SHARDING_STRATEGY": "1"}, "full_shard", "true"),
        ({"FSDP_SHARDING_STRATEGY": "shard_grad_op"}, "shard_grad_op", "false"),
        # a file that names the strategy by its newer name gets the older variable as well
        (
            {"FSDP_SHARDING_STRATEGY": "FULL_SHARD", "FSDP_RESHARD_AFTER_FORWARD": "shard_grad_op"},
            "shard_grad_op",
            "false",
        ),
    ],
)
def test_the_first_fsdp_is_the_second(said: dict[str, str], strategy: str, reshard: str) -> None:
    environment = {**FIRST, **said, "FSDP_BACKWARD_PREFETCH": "BACKWARD_PRE"}
    found = effect(environment)

    assert found.items() >= (SHARES | {"FSDP_RESHARD_AFTER_FORWARD": reshard}).items()
    assert "FSDP_BACKWARD_PREFETCH" not in found
    assert read_setup(environment).asked == f"fsdp 1 {strategy}"


def test_the_first_fsdp_without_shares_is_whole_copies() -> None:
    assert "ACCELERATE_USE_FSDP" not in effect({**FIRST, "FSDP_SHARDING_STRATEGY": "NO_SHARD"})


@pytest.mark.parametrize("strategy", ["HYBRID_SHARD", "5", "HALF"])
def test_replicas_of_shares_and_unknown_strategies_are_refused(strategy: str) -> None:
    with pytest.raises(TrainingError, match="version 1 with H"):
        read_setup({**FIRST, "FSDP_SHARDING_STRATEGY": strategy})


def test_the_environment_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    before = dict(os.environ)

    with carried_out():
        assert os.environ["FSDP_VERSION"] == "2"
    with pytest.raises(RuntimeError, match="on purpose"), carried_out():
        raise RuntimeError("on purpose")

    assert dict(os.environ) == before
