"""Single weights set to zero with an eye on data, block by block: each sees what the sparse ones before it give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reuselib.calibration.statistics import as_matrix
from reuselib.calibration.streaming import stream
from reuselib.pruning.sparsegpt import sparsegpt
from reuselib.pruning.wanda import wanda

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.calibration.statistics import Statistics
    from reuselib.pruning.masks import Quota
    from reuselib.task import Batch, Task


def solve(
    module: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    layers: Mapping[str, nn.Module],
    quota: Quota,
    *,
    compensate: bool,
) -> None:
    """Zero weights of `layers` in place.

    Args:
        module: the network.
        task: what it is for.
        batches: calibration rows.
        layers: by name.
        quota: what each of them loses.
        compensate: SparseGPT, so that weights that stay make up for those that go; else Wanda.

    Raises:
        TrainingError: an input of a layer is not finite.
        IncompatibleStep: no row reaches a layer, or its type cannot be calibrated.
    """
    import torch

    for visit in stream(module, task, batches, list(layers), gram=compensate):
        for name, seen in visit.layers.items():
            matrix = as_matrix(layers[name])
            with torch.no_grad():
                matrix.copy_(_sparse(matrix, seen, quota))


def _sparse(matrix: Tensor, seen: Statistics, quota: Quota) -> Tensor:
    """The sparse matrix, by what goes into its layer."""
    if seen.gram is not None:
        return sparsegpt(matrix, seen.gram, sparsity=quota.sparsity, pattern=quota.group)
    stays = wanda(matrix, seen.norm, sparsity=quota.sparsity, pattern=quota.group)
    return matrix.masked_fill(~stays, 0.0)
