"""AdamW over the parameters that learn, and the clipping of their gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reuselib.training.plan import FitPlan, ParameterGroup
from reuselib.training.shares import local, total_norm

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FUSED_ON = ("cpu", "cuda", "mps", "xpu")


def adamw(
    module: nn.Module, plan: FitPlan, groups: Sequence[ParameterGroup] = ()
) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient.

    Each group of the optimizer carries its `lr_scale`; biases and normalisation weights do not decay.
    """
    import torch

    scales = {name: group.lr_scale for group in groups for name in group.names}
    plain = _undecayed(module)
    buckets: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in plain else plan.optimizer.weight_decay
            buckets.setdefault((scales.get(name, 1.0), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr_scale": scale, "weight_decay": decay}
            for (scale, decay), parameters in buckets.items()
        ],
        lr=plan.learning_rate,
        betas=plan.optimizer.betas,
        eps=plan.optimizer.eps,
        fused=all(
            parameter.device.type in FUSED_ON and parameter.is_floating_point()
            for parameters in buckets.values()
            for parameter in parameters
        ),
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradient down to `max_norm` if it is longer; return its norm before."""
    import torch

    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients, norm = [local(gradient) for gradient in found], total_norm(found)
    scale = max_norm / (norm + 1e-6)
    # Reading a number costs nothing on a CPU and spares a pass over the gradient; elsewhere it would wait.
    if norm.device.type != "cpu" or not scale >= 1.0:
        torch._foreach_mul_(gradients, scale.clamp(max=1.0).to(norm.device))
    return norm


def _undecayed(module: nn.Module) -> frozenset[str]:
    """Names of biases and of what has no matrix shape: normalisation weights, gains, single numbers."""
    return frozenset(
        name
        for name, parameter in module.named_parameters()
        if parameter.ndim < 2 or name.rpartition(".")[2] == "bias"
    )
