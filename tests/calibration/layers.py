"""A small layer with inputs that are as real ones are: channels of unlike size that depend on one another."""

from __future__ import annotations

import torch
from torch import Tensor

from reuselib.calibration.statistics import Statistics


def inputs(num_features: int = 24, num_tokens: int = 400, seed: int = 0) -> Tensor:
    """[tokens, features]."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(num_features, num_features, generator=random)
    sizes = torch.rand(num_features, generator=random) * 3 + 0.1
    return torch.randn(num_tokens, num_features, generator=random) @ mix * sizes


def weight(num_outputs: int = 16, num_features: int = 24, seed: int = 1) -> Tensor:
    """[out, in]."""
    return torch.randn(num_outputs, num_features, generator=torch.Generator().manual_seed(seed))


def statistics_of(values: Tensor) -> Statistics:
    """What `stream` would find, by plain formulas."""
    sizes = values.abs()
    return Statistics(
        num_tokens=len(values),
        norm=values.norm(dim=0),
        abs_mean=sizes.mean(dim=0),
        abs_max=sizes.amax(dim=0),
        gram=values.T @ values / len(values),
    )


def completed(dense: Tensor, settled: Tensor, hessian: Tensor, at: int) -> Tensor:
    """The columns from `at` on that make up best for what was settled before: least squares, solved directly."""
    if at == 0:
        return dense.clone()
    left, right = slice(0, at), slice(at, None)
    gap = (dense[:, left] - settled[:, left]).double()
    correction = torch.linalg.solve(hessian[right, right], hessian[right, left] @ gap.T).T
    return (dense[:, right].double() + correction).float()


def damped(gram: Tensor, damping: float) -> Tensor:
    """The matrix that the solvers work with, in fp64."""
    values = gram.double()
    return values + damping * values.diagonal().mean() * torch.eye(len(values), dtype=torch.float64)
