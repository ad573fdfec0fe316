from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import FitPlan, Optimizer, ParameterGroup
from reuselib.training.zeros import sparse_parameters, zeros_kept

from toys import Points, points  # isort: skip


def network() -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        module[0].weight[::2, 0] = 0
    return module


def test_only_what_was_made_sparse_is_found():
    module = network()
    module.append(nn.Linear(2, 2))
    nn.init.zeros_(module[3].weight)  # a head that starts at zero has to learn

    assert sparse_parameters(module) == ("0.weight",)
    assert sparse_parameters(module, fresh={"0.weight"}) == ()


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_zeros_stay_to_the_bit_and_the_rest_learns(max_grad_norm):
    module = network()
    zero = module[0].weight.detach() == 0
    before = module[0].weight.detach().clone()
    plan = FitPlan(
        epochs=3,
        batch_size=8,
        learning_rate=0.05,
        optimizer=Optimizer(weight_decay=0.1, max_grad_norm=max_grad_norm),
    )

    fit(module, plan, Job(task=Points(), processor=None, train=points(32), sparse=("0.weight",)))

    after = module[0].weight.detach()
    assert bool((after[zero] == 0).all())
    assert bool((after[~zero] != before[~zero]).all())


def test_the_step_is_that_of_a_network_without_these_weights():
    """Neither the norm that gradients are clipped by nor AdamW's moments know them."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 16, bias=False), nn.Linear(16, 2))
    smaller = nn.Sequential(nn.Linear(2, 8, bias=False), nn.Linear(8, 2))
    with torch.no_grad():
        smaller[0].weight.copy_(module[0].weight[1::2])
        smaller[1].weight.copy_(module[1].weight[:, 1::2])
        smaller[1].bias.copy_(module[1].bias)
        module[0].weight[::2] = 0
    optimizer = Optimizer(max_grad_norm=0.01)
    plan = FitPlan(epochs=2, batch_size=8, learning_rate=0.05, optimizer=optimizer)

    for each, names in ((module, ("0.weight",)), (smaller, ())):
        fit(each, plan, Job(task=Points(), processor=None, train=points(32), sparse=names))

    assert torch.allclose(module[0].weight[1::2], smaller[0].weight, atol=1e-6)
    assert torch.allclose(module[1].weight[:, 1::2], smaller[1].weight, atol=1e-6)


def test_what_opens_later_keeps_its_zeros_too():
    module = network()
    group = ParameterGroup(("0.weight", "0.bias"), from_epoch=1)
    plan = FitPlan(epochs=2, batch_size=8, learning_rate=0.05)

    job = Job(
        task=Points(), processor=None, train=points(32), groups=(group,), sparse=("0.weight",)
    )
    fit(module, plan, job)

    assert bool((module[0].weight[::2, 0] == 0).all())
    assert bool((module[0].weight[1::2] != network()[0].weight[1::2]).all())


def test_nothing_is_left_behind():
    module = network()
    with zeros_kept(module, ["0.weight"]):
        pass
    module(torch.ones(1, 2)).sum().backward()
    assert not module[0].weight._backward_hooks


def test_an_overflow_at_a_zero_is_no_overflow():
    module = network()
    with zeros_kept(module, ["0.weight"]):
        module[0].weight.backward(torch.full((16, 2), float("inf")))
    assert bool((module[0].weight.grad[::2, 0] == 0).all())
    assert bool(module[0].weight.grad[1::2].isinf().all())
