"""What `accelerate launch` was configured to do, by the variables that it sets, and how that is done here.

This loop trains whole copies (DDP), or shares of everything by torch's `fully_shard` (FSDP2). What DeepSpeed and FSDP
version 1 are configured for is, first of all, where weights, gradients and moments lie; that can be said in terms of
FSDP2, so it is done with that. accelerate must not see the configuration as it was: it would load DeepSpeed, and hand
the training over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reuselib.errors import TrainingError
from reuselib.training.zero import Demand, Zero, read_zero

SUPPORTED = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "FSDP")
"""Kinds of accelerate's state that this loop trains with."""
OTHERS = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism over tensors, contexts or replicas",
}
"""By variable that `accelerate launch` sets: what it stands for."""
DEEPSPEED, FSDP = "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"
STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2")
"""Of FSDP version 1, in the order of their numbers."""
WHOLE, SHARES = "whole copies (DDP)", "torch's fully_shard"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A configuration, and how it is carried out."""

    asked: str = ""
    """What it asks for, if that is carried out in another way: `deepspeed zero 3`, `fsdp 1 full_shard`."""
    remark: str = ""
    """To be said about that."""
    changes: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    """Variables as they would be for what is carried out; None for one that is not set."""
    demands: tuple[Demand, ...] = ()
    """What must be the same in the recipe."""


def read_setup(environment: Mapping[str, str] = os.environ) -> Setup:
    """What the configuration asks for.

    Raises:
        TrainingError: something that this loop does not do.
        SourceError: DeepSpeed's part of it cannot be read.
    """
    for flag, name in OTHERS.items():
        if _is_true(environment, flag):
            raise _other(name)
    if _is_true(environment, DEEPSPEED):
        return _from_deepspeed(read_zero(environment))
    if _is_true(environment, FSDP) and environment.get("FSDP_VERSION", "1") != "2":
        return _from_first_fsdp(environment)
    return Setup()


@contextmanager
def carried_out() -> Iterator[Setup]:
    """Let accelerate see within what is carried out, in place of what was configured.

    Raises:
        TrainingError, SourceError: as `read_setup`.
    """
    setup = read_setup()
    before = {name: os.environ.get(name) for name in setup.changes}
    _set(setup.changes)
    try:
        yield setup
    finally:
        _set(before)


def refuse_kind(kind: object) -> None:
    """Refuse what an `Accelerator` that was there before is set up for.

    Raises:
        TrainingError: this loop does not train with it.
    """
    name = getattr(kind, "name", "NO")
    if name not in SUPPORTED:
        raise _other(name)


def refuse_plugin(plugin: Any) -> None:
    """Refuse version 1 of FSDP in an `Accelerator` that was there before; a configuration may ask for it.

    Raises:
        TrainingError: it is of version 1.
    """
    if plugin is not None and plugin.fsdp_version != 2:
        raise TrainingError(
            "there is an `Accelerator` with FSDP version 1 in this process",
            expected="none, or one with `FullyShardedDataParallelPlugin(fsdp_version=2)`",
            fix="make it afterwards: a configuration for version 1 is carried out without it",
        )


def _from_deepspeed(zero: Zero) -> Setup:
    changes: dict[str, str | None] = {DEEPSPEED: None}
    if zero.stage:
        changes |= {
            FSDP: "true",
            "FSDP_VERSION": "2",
            "FSDP_RESHARD_AFTER_FORWARD": str(zero.stage == 3).lower(),
            "FSDP_OFFLOAD_PARAMS": str(zero.offload).lower(),
        }
    return Setup(
        asked=f"deepspeed zero {zero.stage}",
        remark=f"DeepSpeed ZeRO stage {zero.stage} is carried out with {SHARES if zero.stage else WHOLE};"
        " the DeepSpeed engine is not used",
        changes=changes,
        demands=zero.demands,
    )


def _from_first_fsdp(environment: Mapping[str, str]) -> Setup:
    # Newer files name the strategy there, while the older variable is set whether the file has it or not.
    newer = environment.get("FSDP_RESHARD_AFTER_FORWARD", "").upper()
    named = newer if newer in STRATEGIES else environment.get("FSDP_SHARDING_STRATEGY", "1").upper()
    strategy = STRATEGIES[int(named) - 1] if named in ("1", "2", "3", "4", "5") else named
    if strategy not in STRATEGIES[:3]:
        raise TrainingError(
            f"the accelerate configuration asks for FSDP version 1 with {strategy}, which this loop does not do",
            expected=", ".join(STRATEGIES[:3]),
            fix="correct `fsdp_sharding_strategy`, or use `fsdp_version: 2`",
        )
    whole = strategy == "NO_SHARD"
    changes: dict[str, str | None] = {
        FSDP: None if whole else "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": str(strategy == "FULL_SHARD").lower(),
        # of no use to version 2, which warns about them
        "FSDP_BACKWARD_PREFETCH": None,
        "FSDP_STATE_DICT_TYPE": None,
    }
    return Setup(
        asked=f"fsdp 1 {strategy.lower()}",
        remark=f"FSDP version 1 with {strategy} is carried out with {WHOLE if whole else SHARES}",
        changes=changes,
    )


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() == "true"


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _other(name: str) -> TrainingError:
    return TrainingError(
        f"accelerate is set up for {name}, which this loop does not train with",
        expected="one process, several with a whole copy of the model each, or shares: FSDP, or ZeRO of DeepSpeed",
        fix="to spread a model over processes, use an accelerate configuration with `fsdp_version: 2`,"
        " and make no `Accelerator` of your own before",
    )
