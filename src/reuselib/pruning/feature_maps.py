"""How much each channel of a convolutional network's layers does on a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.task import Batch, Task


def mean_activations(
    network: nn.Module, task: Task, batches: Sequence[Batch]
) -> Mapping[str, Tensor]:
    """By name of a layer, the mean |output| of each channel over rows and positions: fp32, [channels].

    Raises:
        TrainingError: an output is not finite.
    """
    import torch

    totals = _Means()
    network.eval()
    for batch in batches:
        with torch.no_grad(), _watched(network, lambda name, maps: totals.add(name, maps.abs())):
            task.forward(network, batch)
    return totals.finite()


def mean_saliencies(
    network: nn.Module, task: Task, batches: Sequence[Batch]
) -> Mapping[str, Tensor]:
    """By name of a layer, the mean over rows of |sum over positions of output x gradient| of each channel.

    That is by how much the loss would change, to first order, if the channel were zero (Molchanov et al., 2017,
    https://arxiv.org/abs/1611.06440). fp32, [channels]. The network's gradients are overwritten.

    Raises:
        TrainingError: an output or a gradient is not finite.
    """
    totals = _Means()
    network.eval().requires_grad_(True)
    for batch in batches:
        maps: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor, maps: dict[str, Tensor] = maps) -> None:
            output.retain_grad()
            maps[name] = output

        with _watched(network, keep, raw=True):
            task.loss(task.forward(network, batch), batch).backward()
        for name, output in maps.items():
            if output.grad is not None:
                channel = _channel(network.get_submodule(name), output.detach() * output.grad)
                totals.add(name, channel.sum(dim=2, keepdim=True).abs())
        network.zero_grad()
    return totals.finite()


class _Means:
    """Running means by layer, over rows and positions."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._numbers: dict[str, int] = {}

    def add(self, name: str, maps: Tensor) -> None:
        """Maps of some rows: [rows, channels, positions]."""
        total = maps.double().sum(dim=(0, 2))
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._numbers[name] = self._numbers.get(name, 0) + maps.shape[0] * maps.shape[2]

    def finite(self) -> dict[str, Tensor]:
        for name, total in self._sums.items():
            if not total.isfinite().all():
                raise TrainingError(
                    f"layer {name} gives values that are not finite on the calibration rows",
                    expected="finite outputs and gradients",
                    fix="check the rows and the weights of the model",
                )
        return {name: (total / self._numbers[name]).float() for name, total in self._sums.items()}


def _channel(layer: nn.Module, output: Tensor) -> Tensor:
    """An output as [rows, channels, positions]; linear layers have their channels last."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        output = output.movedim(-1, 1)
    return output.flatten(2) if output.dim() > 2 else output.unsqueeze(2)


@contextmanager
def _watched(
    network: nn.Module, watcher: Callable[[str, Tensor], None], *, raw: bool = False
) -> Iterator[None]:
    """Show `watcher` what convolutions, linear layers and batch norms put out.

    `raw` shows the output itself; otherwise it comes as [rows, channels, positions].
    """
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def see(layer: nn.Module, _: object, output: Tensor) -> None:
            watcher(name, output if raw else _channel(layer, output))

        return see

    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, (_ConvNd, nn.Linear, _BatchNorm))
    }
    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
