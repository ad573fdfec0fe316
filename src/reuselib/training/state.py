"""The whole state of a training between two steps: what it takes to go on as if it had never been interrupted.

A state is a folder with two files, `tensors.safetensors` and `state.json`, which says the digest of the former; so its
own digest binds both. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.digest import file_sha256
from reuselib.lineage.disk import writing
from reuselib.lineage.reading import Fields
from reuselib.lineage.tensors import Tensors, save_tensors
from reuselib.training.shares import cut_like, whole_at_first

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from reuselib.adapter import Json

TENSORS, STATE = "tensors.safetensors", "state.json"
_VERSION = 1
_KNOWN = ("state", "sha256", "step", "numRows", "numTargets", "random", "best", "scaler")


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that the next step depends on, besides the rows and what the training was started with."""

    step: int
    """Optimizer steps that were done."""
    num_rows: int
    """Rows that were seen in them."""
    num_targets: float
    """Targets seen in the present epoch."""
    tensors: Mapping[str, Tensor]
    """On the CPU. `weights.<name>`: parameters that learn, and buffers. `optimizer.<key>.<name>`: what the optimizer
    keeps for a parameter. `best.<name>`: the best weights so far, with early stopping. `random.*`: the generators of
    torch, NumPy and Python, and `random<rank>.*` those of the other processes. `loss_sum`: over the targets of the
    present epoch."""
    random: Mapping[str, Json] = field(default_factory=dict)
    """What the generators of NumPy and Python keep besides; under `<rank>` those of the other processes."""
    best: Mapping[str, Json] | None = None
    """Figures of early stopping."""
    scaler: Mapping[str, Json] | None = None
    """Of the loss scale, in fp16."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose name begins with `<prefix>.`, without that."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): value
            for name, value in self.tensors.items()
            if name.startswith(start)
        }


@dataclass(frozen=True)
class Keeper:
    """Which states of a training to keep, and how."""

    num_states: int
    """Spread evenly over the run."""
    write: Callable[[State], str]
    """Puts a state away and returns the digest of its `state.json`."""

    def steps(self, num_steps: int) -> frozenset[int]:
        """After which of so many steps to keep the state; never after the last, which is the child."""
        parts = self.num_states + 1
        return frozenset(
            step for at in range(1, parts) if 0 < (step := at * num_steps // parts) < num_steps
        )


def weights_of(module: nn.Module, learned: Sequence[str]) -> dict[str, Tensor]:
    """What training changes in a module: the parameters that learn, and the buffers."""
    parameters = {name: module.get_parameter(name).detach() for name in learned}
    return {**parameters, **dict(module.named_buffers())}


def optimizer_tensors(
    module: nn.Module, learned: Sequence[str], optimizer: Optimizer
) -> dict[str, Tensor]:
    """What the optimizer keeps, by `<key>.<name of the parameter>`."""
    return {
        f"{key}.{name}": value
        for name in learned
        for key, value in optimizer.state.get(module.get_parameter(name), {}).items()
    }


def restore_weights(state: State, module: nn.Module, learned: Sequence[str]) -> None:
    """Give a module what it had.

    Raises:
        IntegrityError: `BAD_STATE`, it is the state of another network.
    """
    import torch

    own, kept = weights_of(module, learned), state.part("weights")
    if {name: (value.shape, value.dtype) for name, value in own.items()} != {
        name: (value.shape, value.dtype) for name, value in kept.items()
    }:
        odd = min(own.keys() ^ kept.keys(), default="a tensor of another shape or type")
        raise _bad(f"it is the state of another network: {odd}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(cut_like(kept[name], value))


def restore_optimizer(
    state: State, module: nn.Module, learned: Sequence[str], optimizer: Optimizer
) -> None:
    """Give an optimizer what it kept; raises as `restore_weights`."""
    for place, value in state.part("optimizer").items():
        key, _, name = place.partition(".")
        if name not in learned:
            raise _bad(f"its optimizer knows a parameter {name!r} that does not learn")
        parameter = module.get_parameter(name)
        if value.ndim and value.shape != parameter.shape:
            raise _bad(f"its optimizer keeps something of another shape for {name!r}")
        # a step count lies where a fused optimizer needs it, else always on the CPU
        fused = bool(optimizer.param_groups[0].get("fused"))
        device = parameter.device if value.ndim or fused else "cpu"
        copy = value.to(device, copy=True)
        optimizer.state[parameter][key] = cut_like(copy, parameter) if value.ndim else copy


def random_state() -> tuple[dict[str, Tensor], dict[str, Json]]:
    """The generators of torch, NumPy and Python: tensors, and what goes with them."""
    import numpy as np
    import torch

    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, following = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.array(keys).astype(np.int64)),
        "python": torch.tensor(numbers, dtype=torch.int64),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = enumerate(torch.cuda.get_rng_state_all())
        tensors |= {f"cuda{number}": value for number, value in devices}
    other: dict[str, Json] = {
        "numpy": [int(position), int(has_gauss), float(gauss)],
        "python": [int(version), following],
    }
    return tensors, other


def restore_random(state: State, rank: int = 0) -> None:
    """Put the generators of this process where they were; raises as `restore_weights`."""
    import numpy as np
    import torch

    tensors = state.part(f"random{rank or ''}")
    try:
        others: Any = state.random[str(rank)] if rank else state.random
        position, has_gauss, gauss = others["numpy"]
        version, following = others["python"]
        keys = tensors["numpy"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, position, has_gauss, gauss))
        random.setstate((version, tuple(tensors["python"].tolist()), following))
        torch.set_rng_state(tensors["torch"])
        for name in sorted(tensors):
            if name.startswith("cuda"):
                torch.cuda.set_rng_state(tensors[name], int(name.removeprefix("cuda")))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _bad(f"its random generators cannot be set: {error}") from error


def write_state(folder: Path, state: State) -> str:
    """Write a state into an empty folder; return the digest that binds it.

    Raises:
        StoreError: it cannot be written.
    """
    save_tensors(state.tensors, folder / TENSORS)
    text = canonical.dumps(
        {
            "state": _VERSION,
            "sha256": file_sha256(folder / TENSORS),
            "step": state.step,
            "numRows": state.num_rows,
            "numTargets": int(state.num_targets),
            "random": dict(state.random),
            "best": None if state.best is None else dict(state.best),
            "scaler": None if state.scaler is None else dict(state.scaler),
        }
    )
    with writing(folder):
        (folder / STATE).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def read_state(folder: Path, digest: str) -> State:
    """Read what `write_state` wrote.

    Raises:
        SourceError: it is not there.
        IntegrityError: `DIGEST_MISMATCH`, it was changed; `BAD_STATE`, it is none.
    """
    try:
        with (folder / STATE).open("rb") as file:
            text = file.read(canonical.MAX_BYTES + 1)
    except OSError as error:
        raise SourceError(
            f"the state at {folder} cannot be read: {error.strerror}",
            fix="train again and keep states",
        ) from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise IntegrityError("DIGEST_MISMATCH", f"the state at {folder} was changed", path=STATE)
    fields = Fields(canonical.loads(text, path=STATE), "", _KNOWN, STATE)
    if fields.get("state", int) != _VERSION:
        raise _bad(f"it is of version {fields.value['state']}, not {_VERSION}")
    if file_sha256(folder / TENSORS) != fields.get("sha256", str):
        raise IntegrityError("DIGEST_MISMATCH", f"{TENSORS} of a state was changed", path=TENSORS)
    tensors = Tensors(folder)
    return State(
        step=fields.get("step", int),
        num_rows=fields.get("numRows", int),
        num_targets=float(fields.get("numTargets", int)),
        tensors={name: tensors[name] for name in tensors},
        random=fields.get("random", dict),
        best=_optional(fields, "best"),
        scaler=_optional(fields, "scaler"),
    )


def _optional(fields: Fields, name: str) -> dict[str, Any] | None:
    return fields.get(name, dict) if fields.json(name) is not None else None


def _bad(why: str) -> IntegrityError:
    return IntegrityError("BAD_STATE", f"a kept state cannot be used: {why}", path=STATE)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors on the CPU, whole, under names that begin with `<prefix>.`: no copies of those that are so already.

    What is in shares is given to the first process only, and must be asked for by all.
    """
    for name, value in tensors.items():
        full = whole_at_first(value.detach())
        if full is not None:
            yield f"{prefix}.{name}", full.cpu()
