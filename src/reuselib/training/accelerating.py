"""The only door to accelerate: one `Accelerator` per fit, which leaves no trace in the process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import MissingExtra, TrainingError
from reuselib.training.plan import FitPlan
from reuselib.training.setups import carried_out, refuse_kind, refuse_plugin

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import Tensor, nn

EFFICIENT_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"
"""Variable for which transformers leaves the weights of all processes but the first of a machine empty."""
MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@contextmanager
def opened(
    precision: str, trackers: Sequence[str] = (), logging_dir: Path | None = None
) -> Iterator[Accelerator]:
    """An `Accelerator` in that precision, apart from any that the caller has.

    accelerate keeps its state in the process. What the caller set up is put back afterwards, as is its absence;
    the caller's choice of device and processes is respected.

    Raises:
        TrainingError: the caller's state or configuration divides the model in a way that this loop does not train
            (Megatron, tensors or contexts in parts, more of DeepSpeed than ZeRO), or a tracker is unknown.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import GradientAccumulationPlugin

    _check_trackers(trackers)
    kept = [
        (state._shared_state, dict(state._shared_state))
        for state in (AcceleratorState, GradientState, PartialState)
    ]
    refuse_kind(kept[0][1].get("distributed_type") or kept[2][1].get("distributed_type"))
    plugin = kept[0][1].get("fsdp_plugin")
    refuse_plugin(plugin)
    try:
        with carried_out():
            AcceleratorState._shared_state.clear()
            GradientState._shared_state.clear()
            accelerator = Accelerator(
                mixed_precision=MIXED[precision],
                # Passed as a plug-in, because a plain number is overruled by the environment.
                gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
                fsdp_plugin=plugin,
                log_with=list(trackers) or None,
                project_dir=logging_dir,
                kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
            )
        refuse_kind(accelerator.distributed_type)
        yield accelerator
        for tracker in accelerator.trackers:
            tracker.finish()
    finally:
        for shared, before in kept:
            # A process group outlives the fit, and with it the state that knows about it.
            if shared is PartialState._shared_state and not before and _in_group():
                continue
            shared.clear()
            shared.update(before)


@contextmanager
def read_by_all() -> Iterator[None]:
    """Let every process read a network's weights within, although a configuration lets the first one read them alone.

    What is not to be trained is needed by every process too, and then there is nobody who would hand it out.
    """
    before = os.environ.get(EFFICIENT_LOADING)
    if before is None:
        yield
        return
    os.environ[EFFICIENT_LOADING] = "false"
    try:
        yield
    finally:
        os.environ[EFFICIENT_LOADING] = before


@contextmanager
def prepared(accelerator: Accelerator, module: nn.Module) -> Iterator[nn.Module]:
    """`module` as accelerate wants it, and afterwards as it was."""
    marks = ("forward", "_original_forward", "_is_accelerate_prepared")
    before = {mark: module.__dict__[mark] for mark in marks if mark in module.__dict__}
    try:
        yield accelerator.prepare_model(module)
    finally:
        for mark in marks:
            module.__dict__.pop(mark, None)
        module.__dict__.update(before)


def backward(accelerator: Accelerator, loss: Tensor) -> None:
    """Add a loss's gradient to `.grad`, scaled up where small numbers would vanish (fp16)."""
    (loss if accelerator.scaler is None else accelerator.scaler.scale(loss)).backward()


def take_step(accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> None:
    """Change the weights by their gradient, and forget it; a scaled gradient that overflowed changes nothing.

    As `AcceleratedOptimizer` does, which besides looks on the disk for another package in every step, and at the
    optimizer's signature: longer than a small head takes to learn.
    """
    if accelerator.scaler is None:
        optimizer.step()
    else:
        accelerator.scaler.step(optimizer)
        accelerator.scaler.update()
    optimizer.zero_grad()


def everyones(own: Sequence[Any]) -> list[Any]:
    """What the processes have, one after another in order of their ranks; each must ask at the same place."""
    import torch.distributed as dist

    shares: list[Sequence[Any]] = [()] * dist.get_world_size()
    dist.all_gather_object(shares, list(own))
    return [each for share in shares for each in share]


def settings(plan: FitPlan) -> dict[str, int | float | str | bool]:
    """A plan as flat values, as trackers want them."""
    return dict(_flat(asdict(plan)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, (int, float, str, bool))
            yield prefix + key, value if plain else str(value)


def _check_trackers(trackers: Sequence[str]) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = {tracker.value for tracker in get_available_trackers()}
    for name in trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise TrainingError(
                f"unknown tracker '{name}'", expected=", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            )
        if name not in installed:
            raise MissingExtra(
                f"tracker '{name}' is not installed",
                fix=f"install the extra `trackers`, or `pip install {name}`",
            )


def _in_group() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()
