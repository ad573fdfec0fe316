"""Between a running loop and a state that can be kept: taking one, and going on from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from reuselib.errors import IntegrityError
from reuselib.training.state import (
    STATE,
    State,
    optimizer_tensors,
    prefixed,
    random_state,
    restore_optimizer,
    restore_random,
    restore_weights,
    weights_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Json
    from reuselib.training.loop import Loop
    from reuselib.training.stopping import Best


def capture(loop: Loop) -> State:
    """The state of a loop after an optimizer step: to be written away before the next one, which changes it.

    Several processes call it together, for each has generators of its own.
    """
    import torch

    learned, best = tuple(loop.stages.opens), loop.best
    generators, random = _generators(loop.accelerator.num_processes)
    loss_sum = torch.as_tensor(loop.loss_sum)
    tensors = {
        **dict(prefixed("weights", weights_of(loop.module, learned))),
        **dict(prefixed("optimizer", optimizer_tensors(loop.module, learned, loop.optimizer))),
        **dict(prefixed("best", {} if best is None else best.weights)),
        **generators,
        "loss_sum": loss_sum.detach().cpu().clone(),
    }
    scaler = loop.accelerator.scaler
    return State(
        step=loop.step,
        num_rows=loop.num_rows,
        num_targets=loop.num_targets,
        tensors=tensors,
        random=random,
        best=None if best is None else _figures(best),
        scaler=None if scaler is None else cast("dict[str, Json]", scaler.state_dict()),
    )


def resume(loop: Loop, state: State) -> int:
    """Put a loop that has not begun where a state was taken; return the epoch to go on with.

    An epoch whose last step is done is gone on with too: what follows its steps, such as validation, is still to come.

    Raises:
        IntegrityError: `BAD_STATE`, it is the state of another training.
    """
    learned = tuple(loop.stages.opens)
    if state.step < 1 or "loss_sum" not in state.tensors:
        raise IntegrityError("BAD_STATE", f"a kept state is after step {state.step}", path=STATE)
    restore_weights(state, loop.module, learned)
    restore_optimizer(state, loop.module, learned, loop.optimizer)
    loop.step, loop.num_rows = state.step, state.num_rows
    loop.num_targets = state.num_targets
    loop.loss_sum = state.tensors["loss_sum"].to(loop.accelerator.device)
    if loop.best is not None:
        _restore_best(loop.best, state)
    if loop.accelerator.scaler is not None and state.scaler is not None:
        loop.accelerator.scaler.load_state_dict(dict(state.scaler))
    _refuse_other_path(loop, state)
    # last, because nothing may draw between this and the next step
    restore_random(state, loop.accelerator.process_index)
    return (state.step - 1) // loop.steps_per_epoch


def _generators(num_processes: int) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Those of all processes, see `State`."""
    own, random = random_state()
    found = dict(prefixed("random", own))
    if num_processes > 1:
        import torch.distributed as dist

        every: list[Any] = [None] * num_processes
        dist.all_gather_object(every, (own, random))
        for rank, (tensors, others) in enumerate(every[1:], start=1):
            found |= prefixed(f"random{rank}", tensors)
            random[str(rank)] = others
        if dist.get_rank():
            return {}, {}  # only the first one writes
    return found, random


def _refuse_other_path(loop: Loop, state: State) -> None:
    """A state that is continued to be held against a trail must itself be on it."""
    replay = loop.job.replay
    entry = None if replay is None else replay.trail.at(state.step)
    if entry is not None and loop.recorder is not None and loop.recorder.state() != entry.state:
        raise IntegrityError(
            "BAD_STATE",
            f"the state kept after step {state.step} is not the one whose digest is in the trail",
            path=STATE,
        )


def _figures(best: Best) -> dict[str, Json]:
    """What early stopping knows; a figure that is not there yet is left out, since JSON has no NaN."""
    value, mark = best.figures
    known = {"value": value, "mark": mark}
    numbers: dict[str, Json] = {name: each for name, each in known.items() if each == each}
    return {"epoch": best.epoch, "waited": best.waited, **numbers}


def _restore_best(best: Best, state: State) -> None:
    figures: Mapping[str, Any] = state.best or {}
    try:
        best.epoch, best.waited = int(figures["epoch"]), int(figures["waited"])
        best.figures = (
            float(figures.get("value", "nan")),
            float(figures.get("mark", "nan")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            "BAD_STATE", f"a kept state does not say what early stopping needs: {error}", path=STATE
        ) from error
    best.weights = state.part("best")
