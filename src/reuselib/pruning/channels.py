"""Channels of convolutional networks, left out whole, through torch-pruning.

torch-pruning (DepGraph, Fang et al., 2023, https://arxiv.org/abs/2301.12900) traces the network once and finds which
channels go together: those of layers that are added up, of the norm between two layers, of depthwise layers. It
decides; what it decided is recorded as the rows and columns that are left of every tensor, and the network is cut by
that record here, when it is opened and when it is proven.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from reuselib.adapter import Finding, Json, Run, Weights
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep, IntegrityError
from reuselib.measure.claims import same_bits
from reuselib.network.stating import is_described
from reuselib.pruning.feature_maps import mean_activations, mean_saliencies
from reuselib.pruning.slices import slice_network, sliced, slices_of
from reuselib.pruning.watchdog import limited
from reuselib.pruning.widths import state_widths

if TYPE_CHECKING:
    from torch import Tensor, nn

TIME_LIMIT = 120.0
"""Seconds for one search of torch-pruning. One or two are enough for a ResNet-50; on some networks it never ends."""

HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_head")
"""Keys by which configurations of transformers say that they attend."""


@dataclass(frozen=True, kw_only=True)
class Channels:
    """How many channels to leave out, and which."""

    ratio: float
    """Share of the channels of each layer, or of all layers together; at least one of each layer stays."""
    scope: Literal["uniform", "global"] = "uniform"
    """Whether every layer loses that share, or channels of all layers are ranked together."""
    importance: Literal["magnitude", "taylor", "activation", "random"] = "magnitude"
    round_to: int | None = None
    """Keep a multiple of so many channels in each layer, rounded down."""
    calibration: Calibration = Calibration()
    """For `taylor` and `activation`."""


@dataclass(frozen=True)
class Pruned:
    """What was left out, and how the network can be opened again."""

    structure: dict[str, Json]
    """torch-pruning's `history`, and what is left of every tensor as `pruning/slices.py` records it."""
    stock: bool
    """Whether the network's configuration says its widths by now."""


def prune_channels(module: nn.Module, run: Run, how: Channels) -> Pruned:
    """Leave out channels, in place. The head loses inputs, never outputs.

    Raises:
        IncompatibleStep: there are no convolutions, torch-pruning cannot take the network apart or does not end, or
            a layer would be left without channels.
        DataError: there are no rows to trace the network with.
    """
    _refuse_without_convolutions(module)
    example = run.example()
    head = run.task.head(module)

    def forward(network: nn.Module) -> Tensor:
        return run.task.forward(network, example)

    scores = _scores(module, run, how)
    reference = copy.deepcopy(module).requires_grad_(True)
    history = _traced(lambda: _choose(reference, forward, head, scores, how))
    labelled = copy.deepcopy(module).requires_grad_(True)
    slices = _traced(lambda: _slices(labelled, forward, history))
    shape = _shape(module, forward)
    described = is_described(module, getattr(module, "config", None))
    slice_network(module, slices)
    _check(module, reference, forward, shape)
    return Pruned({"history": history, **slices}, stock=described and state_widths(module))


def replay_channels(module: nn.Module, structure: Mapping[str, Json]) -> nn.Module:
    """The same channels left out of a network with any weights; needs neither rows nor torch-pruning.

    Raises:
        IntegrityError: the record does not fit the network.
    """
    slice_network(module, structure)
    return module


def prove_channels(
    parent: Weights, child: Weights, structure: Mapping[str, Json]
) -> Iterator[Finding]:
    """What the record claims about two sets of tensors."""
    odd = sorted(set(parent) ^ set(child))
    yield Finding("names are the parent's", not odd, tensor=next(iter(odd), ""))
    name, detail = next(_other_rows(parent, child, structure), ("", ""))
    yield Finding(
        "every tensor is the recorded rows and columns of the parent's, bit for bit",
        not name,
        detail or f"{len(structure['tensors'])} of {len(child)} tensors lost some",
        name,
    )


def _other_rows(
    parent: Weights, child: Weights, structure: Mapping[str, Json]
) -> Iterator[tuple[str, str]]:
    for name in child:
        if name not in parent:
            continue
        try:
            wanted = sliced(name, parent[name], structure)
        except IntegrityError as error:
            yield name, str(error)
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


def _scores(module: nn.Module, run: Run, how: Channels) -> Mapping[str, Tensor]:
    """By name of a layer: how much each of its outputs matters; empty if that does not depend on rows."""
    if how.importance not in ("taylor", "activation"):
        return {}
    rows = how.calibration
    batches = run.batches(rows.num_rows, batch_size=rows.batch_size)
    measure = mean_saliencies if how.importance == "taylor" else mean_activations
    return measure(copy.deepcopy(module), run.task, batches)


def _traced(work: Callable[[], Any]) -> Any:
    """What torch-pruning makes of a network, whatever happens to it there."""
    try:
        with warnings.catch_warnings():
            # parameters outside torch's layers are pruned along their last dimension; the check afterwards sees if
            # that was wrong
            warnings.filterwarnings("ignore", "Unwrapped parameters detected", UserWarning)
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


def _choose(
    network: nn.Module,
    forward: Callable[[nn.Module], Tensor],
    head: Sequence[str],
    scores: Mapping[str, Tensor],
    how: Channels,
) -> list[Json]:
    """Prune `network` itself; return torch-pruning's history: name of a layer, whether its outputs, which."""
    import torch_pruning as tp

    pruner = tp.pruner.BasePruner(
        network,
        None,
        _importance(network, scores, how),
        global_pruning=how.scope == "global",
        # a hair less, because 10 x (1 - 0.8) is a little below 2 in floating point and would be cut to 1
        pruning_ratio=how.ratio - 1e-9,
        ignored_layers=[network.get_submodule(name) for name in head],
        round_to=how.round_to,
        forward_fn=lambda module, _: _apart(forward(module)),
        # the defaults are shared by all pruners of the process, and written to
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
        channel_groups={},
    )
    pruner.ignored_layers.extend(_making_outputs(pruner))
    groups = _groups(pruner)
    if not groups:
        raise IncompatibleStep(
            "no layer has channels that could be left out: all belong to the outputs",
            expected="layers between the inputs and the outputs",
            fix="leave `channels` out for this network",
        )
    if how.scope == "global":
        pruner.importance = _ranked(groups, pruner.importance)
    done = set()
    for group in pruner.step(interactive=True):
        done.add(_root(group))
        group.prune()
    _refuse_emptied(pruner, {_root(group) for group in groups}, done, how)
    return [[name, outputs, list(indices)] for name, outputs, indices in pruner.pruning_history()]


def _root(group: Any) -> nn.Module:
    """The layer whose outputs a group begins with."""
    return group[0].dep.target.module


def _apart(outputs: Tensor) -> Tensor:
    """The same outputs, made by an operation of their own, so that the graph has a node for them."""
    return outputs * 1.0


def _groups(pruner: Any) -> list[Any]:
    return list(
        pruner.DG.get_all_groups(
            ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
        )
    )


def _making_outputs(pruner: Any) -> list[nn.Module]:
    """Layers whose channels are the network's outputs, whatever the task calls its head."""
    import torch_pruning as tp

    output = tp.ops.OPTYPE.OUTPUT
    return [
        _root(group)
        for group in _groups(pruner)
        if any(dep.target.type == output for dep, _ in group)
    ]


def _refuse_emptied(
    pruner: Any, wanted: set[nn.Module], done: set[nn.Module], how: Channels
) -> None:
    """torch-pruning passes over a layer that would be emptied, without a word."""
    left = wanted - done if how.scope == "uniform" else (set() if done else wanted)
    if left:
        names = sorted(pruner.DG._module2name[each] for each in left)
        rounded = f", in multiples of {how.round_to}" if how.round_to else ""
        raise IncompatibleStep(
            f"channels={how.ratio:g}{rounded} would leave nothing of layer {names[0]}",
            expected="a share that leaves every layer at least one channel",
            fix="lower `channels`, or `round_to`" if how.round_to else "lower `channels`",
        )


def _importance(
    network: nn.Module, scores: Mapping[str, Tensor], how: Channels
) -> Callable[[Any], Tensor]:
    """Maps a group of channels that go together to one figure each: [channels]."""
    import torch
    import torch_pruning as tp
    from torch.nn.modules.batchnorm import _BatchNorm

    names = {layer: name for name, layer in network.named_modules()}

    def drawn(group: Any) -> Tensor:
        return torch.rand(len(group[0].idxs))

    def measured(group: Any) -> Tensor:
        total = torch.zeros(len(group[0].idxs))
        items = [item for item in group if _says(item, names, scores)]
        # a norm scales the channels of the layer before it anew, so where there are norms they tell
        norms = [item for item in items if isinstance(item.dep.layer, _BatchNorm)]
        for item in norms or items:
            score = scores[names[item.dep.layer]][item.idxs]
            total.scatter_add_(0, torch.tensor(item.root_idxs), score)
        return total / total.mean().clamp_min(1e-30)

    by_magnitude = tp.importance.GroupMagnitudeImportance(p=2)
    return {"magnitude": by_magnitude, "random": drawn}.get(how.importance, measured)


def _ranked(groups: Sequence[Any], importance: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """Places among the channels of all layers instead of scores; the best of each layer comes last of all.

    torch-pruning leaves out whatever is not above its threshold, and so every channel that ties with it, of which
    there are many where channels are dead, and it would pass over a layer of which all are.
    """
    import torch

    scores = [importance(group) for group in groups]
    for score in scores:
        score[score.argmax()] = float("inf")
    order = torch.cat(scores).argsort(stable=True)
    places = torch.empty(len(order))
    places[order] = torch.arange(len(order), dtype=places.dtype)
    by_root = {
        _root(group): part
        for group, part in zip(groups, places.split([len(each) for each in scores]), strict=True)
    }
    return lambda group: by_root[_root(group)]


def _says(item: Any, names: Mapping[nn.Module, str], scores: Mapping[str, Tensor]) -> bool:
    """Whether the outputs of an item's layer were measured, and are channels of the group one by one."""
    import torch_pruning as tp

    return (
        names.get(item.dep.layer) in scores
        and tp.DependencyGraph().is_out_channel_pruning_fn(item.dep.handler)
        and None not in item.root_idxs
    )


def _slices(
    network: nn.Module, forward: Callable[[nn.Module], Tensor], history: Sequence[Json]
) -> dict[str, Json]:
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(
        network, None, forward_fn=lambda module, _: _apart(forward(module))
    )
    return slices_of(network, lambda _: graph.load_pruning_history(history))


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
    except (RuntimeError, ValueError) as error:
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
