"""What the tests of quantization share: weights and inputs as networks have them."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def weight():
    """Rows of unequal size, with some outliers: [48, 64]."""
    weight = torch.randn(48, 64) * torch.rand(48, 1)
    weight[torch.rand_like(weight) < 0.01] *= 8
    return weight


@pytest.fixture
def inputs():
    """Rows of unequal size: [3, 5, 64]."""
    return torch.randn(3, 5, 64) * torch.rand(3, 5, 1).exp()
