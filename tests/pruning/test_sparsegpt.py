from __future__ import annotations

import pytest
import torch

from calibration.layers import completed, damped, inputs, statistics_of, weight
from reuselib.calibration.curvature import output_error
from reuselib.pruning.sparsegpt import sparsegpt
from reuselib.pruning.wanda import wanda

STATISTICS = statistics_of(inputs())
GRAM = STATISTICS.gram
WIDE = statistics_of(inputs(300, 900)).gram


@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"pattern": (2, 4)}], ids=str)
def test_what_stays_is_the_least_squares_answer_to_what_went_before(options):
    dense = weight()

    sparse = sparsegpt(dense, GRAM, **options)

    hessian, zero = damped(GRAM, 0.01), sparse == 0
    settled = torch.zeros_like(dense)
    for at in range(dense.shape[1]):
        column = completed(dense, settled, hessian, at)[:, 0]
        settled[:, at] = column.masked_fill(zero[:, at], 0.0)
    torch.testing.assert_close(sparse, settled, rtol=1e-3, atol=1e-4)


def test_what_goes_costs_least():
    """In one block the mask follows from the dense weight: w^2 over the squared diagonal of the inverse's factor."""
    dense = weight()
    factor = torch.linalg.cholesky(damped(GRAM, 0.01).inverse(), upper=True)
    costs = dense.double().square() / factor.diagonal().square()

    sparse = sparsegpt(dense, GRAM, sparsity=0.25)

    assert (sparse == 0).equal(costs <= costs.flatten().kthvalue(96).values)


def test_the_pattern_takes_what_costs_least_of_each_group():
    dense = weight()
    factor = torch.linalg.cholesky(damped(GRAM, 0.01).inverse(), upper=True)
    first = dense[:, :4].double().square() / factor.diagonal()[:4].square()

    sparse = sparsegpt(dense, GRAM, pattern=(1, 4))

    assert (sparse[:, :4] != 0).equal(first == first.amax(dim=1, keepdim=True))
    assert ((sparse.view(16, 6, 4) != 0).sum(dim=2) == 1).all()


@pytest.mark.parametrize("sparsity", [0.1, 1 / 3, 0.5, 0.77])
@pytest.mark.parametrize(("shape", "gram"), [((16, 24), GRAM), ((7, 300), WIDE)], ids=str)
def test_sparsity_is_exact_to_one_weight(sparsity, shape, gram):
    sparse = sparsegpt(weight(*shape), gram, sparsity=sparsity)

    assert int((sparse == 0).sum()) == round(sparsity * sparse.numel())


def test_outputs_change_less_than_by_leaving_the_same_share_out_alone():
    dense = weight()

    sparse = sparsegpt(dense, GRAM, sparsity=0.5)

    masked = dense * wanda(dense, STATISTICS.norm, sparsity=0.5)
    assert output_error(GRAM, dense, sparse) < output_error(GRAM, dense, masked)


@pytest.mark.parametrize("options", [{"sparsity": 0.6}, {"pattern": (2, 4)}], ids=str)
def test_what_is_zero_stays_zero(options):
    dense = weight(8, 300)
    dense[::2, 120:160] = 0
    dense[:, 7] = 0

    sparse = sparsegpt(dense, WIDE, **options)

    assert not sparse[dense == 0].any()
    if "sparsity" in options:
        assert int((sparse == 0).sum()) == round(0.6 * dense.numel())


def test_the_weight_is_not_changed_and_the_answer_is_the_same_each_time():
    dense = weight()

    first, second = (sparsegpt(dense, GRAM, sparsity=0.5) for _ in range(2))

    assert dense.equal(weight())
    assert first.equal(second)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "either"),
        ({"sparsity": 0.5, "pattern": (2, 4)}, "either"),
        ({"sparsity": 1.0}, "between 0 and 1"),
        ({"pattern": (2, 5)}, "does not divide 24"),
        ({"pattern": (4, 4)}, "0 < n < m"),
    ],
)
def test_bad_requests_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        sparsegpt(weight(), GRAM, **options)
