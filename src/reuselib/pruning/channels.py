"""Channels of convolutional networks, left out whole: chosen, recorded, replayed and proven.

What goes together is found by tracing the network (`pruning/graph.py`). What was decided is recorded as the rows and
columns that are left of every tensor, and the network is cut by that record here, when it is opened and when it is
proven: tracing is never needed again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from reuselib.adapter import Finding, Json, Run, Weights
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep, IntegrityError
from reuselib.lineage.structure import Structure
from reuselib.measure.claims import same_bits, truly_new
from reuselib.network.stating import is_described
from reuselib.pruning import graph
from reuselib.pruning.budget import SLACK, Pool, most, ranked
from reuselib.pruning.coupling import coupled, uncoupled
from reuselib.pruning.feature_maps import mean_activations, mean_saliencies
from reuselib.pruning.slices import Slices, slice_network, sliced
from reuselib.pruning.watchdog import limited
from reuselib.pruning.widths import state_widths

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")

TIME_LIMIT = 120.0
"""Seconds for one search of torch-pruning. One or two are enough for a ResNet-50; on some networks it never ends."""

HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_head")
"""Keys by which configurations of transformers say that they attend."""


@dataclass(frozen=True, kw_only=True)
class Channels:
    """How many channels to leave out, and which."""

    ratio: float
    """Share of the channels of each layer, or of all layers together, rounded down; one of each layer stays."""
    scope: Literal["uniform", "global"] = "uniform"
    """Whether every layer loses that share, or channels of all layers are ranked together."""
    importance: Literal["magnitude", "taylor", "activation", "random"] = "magnitude"
    round_to: int | None = None
    """Leave a multiple of so many channels in each layer, rounded up."""
    calibration: Calibration = Calibration()
    """For `taylor` and `activation`."""


@dataclass(frozen=True)
class Pruned:
    """What was left out, and how the network can be opened again."""

    structure: dict[str, Json]
    """torch-pruning's `history`, what is left of every tensor as `pruning/slices.py` records it, the names of `new`
    tensors that the parent does not hold, and of those `loose` ones whose inputs are no layer's outputs."""
    stock: bool
    """Whether the network's configuration says its widths by now."""


def prune_channels(module: nn.Module, run: Run, how: Channels) -> Pruned:
    """Leave out channels, in place. The head loses inputs, never outputs.

    Raises:
        IncompatibleStep: there are no convolutions, torch-pruning cannot take the network apart or does not end, or
            nothing would go.
        DataError: there are no rows to trace the network with.
    """
    _refuse_without_convolutions(module)
    example = run.example()
    head = run.task.head(module)

    def forward(network: nn.Module) -> Tensor:
        return run.task.forward(network, example)

    score = _score(module, run, how)
    reference = copy.deepcopy(module).requires_grad_(True)
    history = _searched(
        lambda: graph.cut_channels(
            reference, forward, head, score(reference), lambda pools: _lost(pools, how)
        )
    )
    labelled = copy.deepcopy(module).requires_grad_(True)
    slices = _searched(lambda: graph.replayed(labelled, forward, history))
    shape = _shape(module, forward)
    described = is_described(module, getattr(module, "config", None))
    recorded = Structure.read(slices, ("keep", "tensors", "layers"))
    cut = Slices.read(recorded)
    before = dict(module.state_dict())
    slice_network(module, cut)
    _check(module, reference, forward, shape)
    record: dict[str, Json] = {"new": sorted(run.fresh), "history": history, **slices}
    if loose := sorted(set(uncoupled(cut, before))):
        record["loose"] = [*loose]
    return Pruned(record, stock=described and state_widths(module))


def replay_channels(module: nn.Module, structure: Json) -> nn.Module:
    """The same channels left out of a network with any weights; needs neither rows nor torch-pruning.

    Raises:
        IntegrityError: the record does not fit the network.
    """
    slice_network(module, Slices.read(_read(structure)))
    return module


def _read(structure: Json) -> Structure:
    return Structure.read(
        structure, ("new", "history", "keep", "tensors", "layers"), optional=("loose",)
    )


def prove_channels(
    parent: Weights, child: Weights, structure: Json, *, share: float | None = None
) -> Iterator[Finding]:
    """What the record claims about two sets of tensors.

    Args:
        parent: its tensors.
        child: its tensors.
        structure: the record.
        share: of its rows or columns that each tensor loses at most; None: that is not claimed.
    """
    record = _read(structure)
    new, slices = record.names("new"), Slices.read(record)
    odd = sorted((set(parent) | set(new)) ^ set(child))
    yield Finding("names are the parent's", not odd, tensor=next(iter(odd), ""))
    yield truly_new(new, parent)
    name, detail = next(_other_rows(parent, child, slices), ("", ""))
    yield Finding(
        "every tensor is the recorded rows and columns of the parent's, bit for bit",
        not name,
        detail or f"{len(slices.tensors)} of {len(child)} tensors lost some",
        name,
        compared=0 if name else sum(each in parent for each in child),
    )
    yield Finding("something was left out", bool(slices.tensors))
    if name or odd:
        return
    yield from coupled(slices, parent, record.names("loose"))
    if share is not None:
        name, detail = next(_exceeding(parent, slices, share), ("", ""))
        claim = f"no tensor loses more than the claimed share of {share:g}"
        yield Finding(claim, not name, detail, name)


def _exceeding(parent: Weights, slices: Slices, share: float) -> Iterator[tuple[str, str]]:
    for name, dims in slices.tensors.items():
        if name not in parent:
            continue
        for dim, key in dims.items():
            size, left = parent[name].shape[dim], len(slices.keep[key])
            if size - left > share * size + SLACK:
                yield name, f"{size - left} of {size} along dimension {dim}"


def _other_rows(parent: Weights, child: Weights, slices: Slices) -> Iterator[tuple[str, str]]:
    for name in child:
        if name not in parent:
            continue
        try:
            wanted = sliced(name, parent[name], slices)
        except IntegrityError as error:
            yield name, error.what
        else:
            if not same_bits(child[name], wanted):
                yield name, "differs from the parent's"


def _refuse_without_convolutions(module: nn.Module) -> None:
    from torch.nn.modules.conv import _ConvNd

    convolutions = [each for each in module.modules() if isinstance(each, _ConvNd)]
    config = getattr(module, "config", None)
    attends = any(getattr(config, key, None) for key in HEAD_COUNTS)
    if attends or not convolutions:
        what = "a transformer" if attends else "a network without convolutions"
        raise IncompatibleStep(
            f"`channels` was set, but this is {what} ({type(module).__name__})",
            expected="a convolutional network, such as a ResNet",
            fix="for a transformer set `heads`, `ffn`, `hidden` or `blocks` instead",
        )


def _score(module: nn.Module, run: Run, how: Channels) -> Callable[[nn.Module], graph.Score]:
    """What a copy of the network is scored by."""
    if how.importance == "magnitude":
        return lambda _: graph.by_magnitude()
    if how.importance == "random":
        return lambda _: graph.by_chance()
    rows = how.calibration
    batches = run.batches(rows.num_rows, batch_size=rows.batch_size)
    measure = mean_saliencies if how.importance == "taylor" else mean_activations
    measured = measure(copy.deepcopy(module), run.task, batches)
    return lambda network: graph.by_outputs(network, measured)


def _lost(pools: Sequence[Pool], how: Channels) -> Mapping[str, int]:
    """How many channels go, by pool."""
    if how.scope == "global":
        return ranked(pools, how.ratio, how.round_to, weighed=how.importance != "taylor")
    lost = {pool.name: most(pool, how.ratio, how.round_to) for pool in pools}
    if not any(lost.values()):
        widest = max(pools, key=lambda pool: pool.size)
        rounded = f" in multiples of {how.round_to}" if how.round_to else ""
        raise IncompatibleStep(
            f"channels={how.ratio:g}{rounded} leaves out nothing: the widest layer, {widest.name}, has {widest.size}",
            expected="a share that is at least one channel of some layer",
            fix="raise `channels`, or lower `round_to`" if rounded else "raise `channels`",
        )
    return lost


def _searched(work: Callable[[], T]) -> T:
    """What torch-pruning makes of a network, whatever happens to it there."""
    try:
        return limited(work, TIME_LIMIT)
    except IncompatibleStep:
        raise
    except TimeoutError:
        what = f"torch-pruning did not come to an end on this network within {TIME_LIMIT:g} seconds"
    except Exception as error:  # noqa: BLE001 - it fails in many ways on networks that it does not understand
        what = f"torch-pruning cannot take this network apart: {type(error).__name__}: {error}"
    raise IncompatibleStep(
        what,
        expected="a convolutional network, such as ResNet, ConvNeXt, MobileNetV2 or a plain one",
        fix="leave `channels` out for this network; `sparsify` works on any",
    )


def _shape(module: nn.Module, forward: Callable[[nn.Module], Tensor]) -> tuple[int, ...]:
    import torch

    with torch.no_grad():
        return tuple(forward(module.eval()).shape)


def _check(
    module: nn.Module,
    reference: nn.Module,
    forward: Callable[[nn.Module], Tensor],
    shape: tuple[int, ...],
) -> None:
    """The network runs, and computes what torch-pruning's own computes."""
    import torch

    try:
        with torch.no_grad():
            outputs, wanted = forward(module.eval()), forward(reference.eval())
    except (RuntimeError, ValueError, IndexError) as error:
        raise IncompatibleStep(
            f"after its channels were left out, the network does not run any more: {error}",
            expected="a network whose layers take their widths from one another",
            fix="leave `channels` out for this network",
        ) from error
    if tuple(outputs.shape) != shape or not same_bits(outputs, wanted):
        raise IncompatibleStep(
            "after its channels were left out, the network does not compute what torch-pruning's copy does",
            expected="equal outputs of both",
            fix="leave `channels` out for this network, and report it",
        )
