from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import tagger

from reuselib.training.optimizer import adamw, clip, set_learning_rate
from reuselib.training.plan import FitPlan, Optimizer, ParameterGroup


def test_groups_hold_scale_and_decay_and_every_parameter_once() -> None:
    module = tagger()
    module.embedding.requires_grad_(False)
    plan = FitPlan(learning_rate=2.0, optimizer=Optimizer(weight_decay=0.1))

    optimizer = adamw(module, plan, [ParameterGroup(("head.weight",), lr_scale=0.5)])
    set_learning_rate(optimizer, 1.0)

    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        id(module.head.weight): (0.5, 0.1),
        id(module.head.bias): (1.0, 0.0),
        id(module.norm.weight): (1.0, 0.0),
        id(module.norm.bias): (1.0, 0.0),
    }
    assert optimizer.defaults["fused"]


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipping_is_torchs(max_norm: float) -> None:
    torch.manual_seed(0)
    ours = [
        nn.Parameter(torch.zeros(3, 4)),
        nn.Parameter(torch.zeros(5)),
        nn.Parameter(torch.ones(2)),
    ]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        mine.grad = torch.randn_like(mine)
        other.grad = mine.grad.clone()

    norm = clip(ours, max_norm)

    expected = nn.utils.clip_grad_norm_(theirs, max_norm)
    torch.testing.assert_close(norm, expected)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
