from __future__ import annotations

import pytest
import torch

from reuselib.measure.chunks import pieces
from reuselib.measure.rank import spectrum


def matrices(rank, *, size=1e-2, dtype=torch.float32, shape=(96, 64)):
    """A weight, and the same with a matrix of a rank added, as it is stored in a type."""
    torch.manual_seed(rank)
    base = torch.randn(shape)
    update = torch.randn(shape[0], rank) @ torch.randn(rank, shape[1]) * size
    return (base + update).to(dtype).float(), base.to(dtype).float()


@pytest.mark.parametrize("rank", [1, 4, 8])
@pytest.mark.parametrize("shape", [(96, 64), (64, 96)])
def test_the_rank_shows_above_the_noise_and_one_less_does_not_pass(rank, shape):
    one, other = matrices(rank, shape=shape)
    exact = torch.linalg.svdvals((one - other).double())

    found = spectrum(one, other, rank, torch.float32)

    assert found.last == pytest.approx(float(exact[rank - 1]), rel=1e-3)
    assert found.next <= found.noise < found.last
    if rank > 1:
        lower = spectrum(one, other, rank - 1, torch.float32)
        assert lower.next > lower.noise


def test_a_faint_rank_more_shows_in_fp32_and_drowns_in_16_bits():
    one, other = matrices(2)
    faint = one + torch.outer(torch.randn(96), torch.randn(64)) * 1e-5

    found = spectrum(faint, other, 2, torch.float32)
    coarse = spectrum(faint.bfloat16().float(), other.bfloat16().float(), 2, torch.bfloat16)

    assert found.next > found.noise
    assert coarse.next <= coarse.noise


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_of_rounding_alone_is_never_taken_for_rank(dtype):
    for seed in range(5):
        torch.manual_seed(seed)
        value = torch.randn(128, 96)
        found = spectrum(value.to(dtype).float(), value, 1, dtype)
        assert found.next <= found.noise


def test_a_rank_that_is_no_limit_leaves_nothing_over():
    one, other = matrices(3, shape=(4, 6))

    assert spectrum(one, other, 4, torch.float32).next == 0


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (10, 5), (3, 1000)])
def test_pieces_cover_every_row_once(shape):
    rows = list(range(shape[0] if shape else 1))

    parts = [rows[each] for each in pieces(shape, 20)]

    assert [row for part in parts for row in part] == rows
    width = shape[1] if len(shape) > 1 else 1
    assert all(len(part) == 1 or len(part) * width <= 20 for part in parts)
