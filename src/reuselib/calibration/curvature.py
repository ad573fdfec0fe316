"""How the squared error of a layer's outputs depends on its weights: what GPTQ and SparseGPT have in common.

With inputs x, changing the weight by D changes the outputs by an error whose mean square is `tr(D H D^T)`, where H is
the mean of x x^T. When one column is rounded or left out, the best the columns after it can do to make up for it
follows from the Cholesky factor of the inverse of H (Frantar et al., 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reuselib.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 128
"""Columns that are worked on together, before the rest of the matrix is brought up to date in one product."""


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor U of the inverse of H, `U^T U = H^-1`, where H is `gram` with a damped diagonal.

    Args:
        gram: mean of x x^T, [in, in].
        damping: this share of the mean of the diagonal is added to it, so that inputs that never vary do no harm.

    Returns:
        fp32 [in, in], computed in fp64.

    Raises:
        ValueError: the damping is not positive.
        TrainingError: H cannot be inverted.
    """
    import torch

    if not damping > 0:
        raise ValueError(f"damping must be above 0, got {damping}")
    hessian = gram.double()
    mean = hessian.diagonal().mean()
    # inputs that are all zero leave every weight as good as another
    hessian = hessian + torch.eye(len(gram), dtype=hessian.dtype) * (damping * mean or 1.0)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if not failed:
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
        if not failed:
            return upper.float()
    raise TrainingError(
        "the inputs of a layer are so alike that what rounding does to its outputs cannot be computed",
        expected="a matrix of their products that can be inverted",
        fix="calibrate with more rows",
    )


def output_error(gram: Tensor, before: Tensor, after: Tensor) -> float:
    """Mean square of the change of a layer's outputs, summed over them.

    Args:
        gram: mean of x x^T, [in, in].
        before: weight, [out, in].
        after: the weight that replaces it, [out, in].
    """
    change = (after - before).double()
    return float((change @ gram.double() * change).sum())
