from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from reuselib.errors import IncompatibleStep
from reuselib.quantization.grid import fits_pairs
from reuselib.quantization.layers import IntegerLinear
from reuselib.quantization.schemes import scheme
from reuselib.quantization.solving import Method, solve
from reuselib.tasks.module import ModuleTask


class Block(nn.Module):
    """A norm, and two layers that go back to the width they came from."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        return x + self.down(self.up(self.norm(x)).relu())


def network():
    return nn.Sequential(Block(), Block(), nn.Linear(32, 4))


TASK = ModuleTask(network=network, criterion=nn.functional.cross_entropy)
INT4, INT8 = scheme("int4-weight", group_size=16), scheme("int8")
LAYERS = ("0.up", "0.down", "1.up", "1.down")


@pytest.fixture
def batches():
    torch.manual_seed(1)
    stretch = torch.rand(32) ** 4 * 20 + 0.05
    return [{"x": torch.randn(16, 32) * stretch} for _ in range(8)]


@pytest.fixture
def dense():
    torch.manual_seed(0)
    module = network().eval()
    with torch.no_grad():
        # some channels carry much more than others, as in trained transformers
        for block in module[:2]:
            block.norm.weight.copy_(torch.rand(32) ** 4 * 20 + 0.05)
    return module


def error(module, dense, batches):
    with torch.no_grad():
        return sum(float((module(b["x"]) - dense(b["x"])).square().sum()) for b in batches)


def solved(dense, batches, how, method):
    module = copy.deepcopy(dense)
    found = solve(module, TASK, batches, dict.fromkeys(LAYERS, how), method)
    assert all(isinstance(module.get_submodule(name), IntegerLinear) for name in LAYERS)
    return module, found


@pytest.mark.parametrize(
    ("how", "method"),
    [
        (INT4, Method("gptq")),
        (INT4, Method("awq")),
        (INT8, Method("rtn", smooth=0.5)),
        (INT8, Method("gptq", smooth=0.5)),
    ],
    ids=["gptq", "awq", "smooth", "both"],
)
def test_looking_at_rows_beats_rounding_to_the_nearest(dense, batches, how, method):
    plain, _ = solved(dense, batches, how, Method("rtn"))

    module, found = solved(dense, batches, how, method)

    assert error(module, dense, batches) < error(plain, dense, batches)
    assert set(found.changes) == set(LAYERS)
    assert bool(found.factored) == (method.name == "awq" or method.smooth is not None)


def test_codes_chosen_for_eight_bits_keep_the_kernel_exact(dense, batches):
    module, _ = solved(dense, batches, INT8, Method("gptq"))

    assert all(fits_pairs(module.get_submodule(name).codes()) for name in LAYERS)


def test_later_blocks_see_what_the_rounded_ones_give(dense, batches):
    """The last layer rounded alone, or after the others: its weights differ, because its inputs do."""
    alone = copy.deepcopy(dense)
    solve(alone, TASK, batches, {"1.down": INT4}, Method("gptq"))

    module, _ = solved(dense, batches, INT4, Method("gptq"))

    assert not module.get_submodule("1.down").codes().equal(alone.get_submodule("1.down").codes())


def test_awq_takes_one_grid_only():
    mixed = {"a": INT4, "b": scheme("int4-weight", group_size=8)}

    with pytest.raises(IncompatibleStep, match="awq rescales channels that several layers share"):
        solve(torch.nn.Identity(), None, [], mixed, Method("awq"))
