from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.errors import IncompatibleStep
from reuselib.quantization.halving import halve


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_everything_that_is_saved_is_rounded_and_nothing_else(dtype):
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    module.register_buffer("angles", torch.rand(8), persistent=False)
    before = {**module.state_dict(), "angles": module.angles}
    before = {name: value.clone() for name, value in before.items()}

    halve(module, dtype)

    for name, value in module.state_dict().items():
        narrow = (
            before[name].to(getattr(torch, dtype)) if value.is_floating_point() else before[name]
        )
        assert value.dtype == before[name].dtype
        assert value.equal(narrow.to(value.dtype))
    assert module.angles.equal(before["angles"])


def test_infinity_is_never_made():
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight[0, 0] = 70000.0

    with pytest.raises(IncompatibleStep, match="weight holds values beyond 65504"):
        halve(module, "float16")
