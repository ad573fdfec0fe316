"""Which channels of a network go together, found by torch-pruning; nothing else here knows that package.

torch-pruning (DepGraph, Fang et al., 2023, https://arxiv.org/abs/2301.12900) runs the network once and follows the
graph of the outputs backwards: channels go together if their layers are added up, if a norm or a depthwise layer lies
between them, and so on. Nothing that it keeps for all its pruners of a process is used: it leaks between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from reuselib.errors import IncompatibleStep
from reuselib.pruning.budget import Pool
from reuselib.pruning.slices import slices_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.adapter import Json

Forward: TypeAlias = "Callable[[nn.Module], Tensor]"
"""Runs a network on an example."""
History: TypeAlias = "list[Json]"
"""torch-pruning's `pruning_history()`: name of a layer, whether its outputs were cut, and which."""
Score: TypeAlias = "Callable[[Any], Tensor]"
"""Maps a group of channels that go together to a figure for each: [channels]."""


@dataclass(frozen=True)
class _Bundle:
    """Channels that go together, those of one layer's outputs first."""

    root: nn.Module
    pool: Pool
    num_groups: int
    """Of a grouped convolution or norm: every group loses the same channels."""

    def indices(self, num_lost: int) -> list[int]:
        """What goes, of the root's outputs."""
        gone = sorted(set(range(self.pool.size)) - set(self.pool.keep(num_lost)))
        return [at * self.pool.size + index for at in range(self.num_groups) for index in gone]


def cut_channels(
    network: nn.Module,
    forward: Forward,
    head: Sequence[str],
    score: Score,
    lose: Callable[[Sequence[Pool]], Mapping[str, int]],
) -> History:
    """Cut channels out of `network` itself; return the history.

    Args:
        network: with parameters that require a gradient.
        forward: runs it.
        head: names of submodules that keep all of their channels; so does whatever makes the outputs.
        score: what matters least goes first.
        lose: says how many channels of each pool go.

    Raises:
        IncompatibleStep: there is nothing that could go.
    """
    graph = _traced(network, forward)
    names = {layer: name for name, layer in network.named_modules()}
    bundles = [
        _bundle(graph, group, names[_root(group)], score) for group in _groups(graph, network, head)
    ]
    if not bundles:
        raise IncompatibleStep(
            "no layer has channels that could be left out: all belong to the outputs",
            expected="layers between the inputs and the outputs",
            fix="leave `channels` out for this network",
        )
    lost = lose([each.pool for each in bundles])
    for each in bundles:
        if lost[each.pool.name]:
            outputs = graph.get_pruner_of_module(each.root).prune_out_channels
            indices = each.indices(lost[each.pool.name])
            graph.get_pruning_group(each.root, outputs, indices).prune()
    return [[name, outputs, list(indices)] for name, outputs, indices in graph.pruning_history()]


def replayed(network: nn.Module, forward: Forward, history: History) -> dict[str, Json]:
    """What a history leaves of every tensor, see `pruning/slices.py`; `network` is used up."""
    graph = _traced(network, forward)
    return slices_of(network, lambda _: graph.load_pruning_history(history))


def by_magnitude() -> Score:
    """The mean square of all weights that would go with a channel, in units of the group's mean."""
    import torch_pruning as tp

    return tp.importance.GroupMagnitudeImportance(p=2)


def by_chance() -> Score:
    """From torch's generator."""
    import torch

    return lambda group: torch.rand(len(group[0].idxs))


def by_outputs(network: nn.Module, measured: Mapping[str, Tensor]) -> Score:
    """By what the layers of a group put out.

    A norm scales the channels of the layer before it anew, so where there are norms, they tell.

    Args:
        network: whose channels are scored.
        measured: by name of a layer, a figure for each of its outputs: [channels].
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    names = {layer: name for name, layer in network.named_modules()}

    def score(group: Any) -> Tensor:
        total = torch.zeros(len(group[0].idxs))
        items = [item for item in group if _tells(item, names, measured)]
        norms = [item for item in items if isinstance(item.dep.layer, _BatchNorm)]
        for item in norms or items:
            figures = measured[names[item.dep.layer]][item.idxs]
            total.scatter_add_(0, torch.tensor(item.root_idxs), figures)
        return total

    return score


def _tells(item: Any, names: Mapping[nn.Module, str], measured: Mapping[str, Tensor]) -> bool:
    """Whether the outputs of an item's layer were measured, and are channels of the group one by one."""
    import torch_pruning as tp

    return (
        names.get(item.dep.layer) in measured
        and tp.DependencyGraph().is_out_channel_pruning_fn(item.dep.handler)
        and None not in item.root_idxs
    )


def _traced(network: nn.Module, forward: Forward) -> Any:
    import torch_pruning as tp

    def apart(module: nn.Module, _: object) -> Tensor:
        # the outputs come from an operation of their own, so that the graph has a node for them
        return forward(module) * 1.0

    # not verbose: whether it guessed right about parameters of unknown layers shows when the network runs again
    return tp.DependencyGraph().build_dependency(network, None, forward_fn=apart, verbose=False)


def _groups(graph: Any, network: nn.Module, head: Sequence[str]) -> list[Any]:
    """All channels that go together and may go."""
    import torch_pruning as tp
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    kept = [layer for name in head for layer in network.get_submodule(name).modules()]
    found = graph.get_all_groups(ignored_layers=kept, root_module_types=[_ConvNd, nn.Linear])
    return [
        group for group in found if all(dep.target.type != tp.ops.OPTYPE.OUTPUT for dep, _ in group)
    ]


def _bundle(graph: Any, group: Any, name: str, score: Score) -> _Bundle:
    number = max(_num_groups(graph, dep) for dep, _ in group)
    scores = score(group).detach().double().cpu().reshape(number, -1).mean(0)
    # a channel of a pool stands for one of each group
    return _Bundle(_root(group), Pool(name, scores, (name,) * number), number)


def _root(group: Any) -> nn.Module:
    """The layer whose outputs a group begins with."""
    return group[0].dep.target.module


def _num_groups(graph: Any, dependency: Any) -> int:
    layer = dependency.target.module
    if getattr(layer, "groups", 1) == getattr(layer, "out_channels", 0):
        return 1  # a depthwise layer loses its channels one by one
    pruner = graph.get_pruner_of_module(layer)
    if graph.is_out_channel_pruning_fn(dependency.handler):
        return pruner.get_out_channel_groups(layer)
    return pruner.get_in_channel_groups(layer)
