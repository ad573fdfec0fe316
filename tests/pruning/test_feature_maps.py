from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.errors import TrainingError
from reuselib.pruning.feature_maps import mean_activations, mean_saliencies


@pytest.fixture
def measured(start):
    """The plain network, its session, and two batches of eight rows."""
    module, session = start("cnn")
    return module, session.task, session.batches(16, batch_size=8)


def test_activations_are_means_over_rows_and_positions(measured):
    module, task, batches = measured
    found = mean_activations(module, task, batches)
    with torch.no_grad():
        rows = torch.cat([batch["x"] for batch in batches])
        first = module[1](module[0](rows))
        last = module(rows)
    assert torch.allclose(found["1"], first.abs().mean(dim=(0, 2, 3)), atol=1e-6)
    assert torch.allclose(found["8"], last.abs().mean(dim=0), atol=1e-6)
    assert {*found} == {"0", "1", "3", "4", "8"}


def test_saliency_is_by_how_much_the_loss_changes_to_first_order(measured):
    """A gate of 1 is multiplied into a channel: the loss's slope by it is output x gradient, summed over positions."""
    module, task, batches = measured
    found = mean_saliencies(module, task, batches)
    total = torch.zeros(8)
    for batch in batches:
        gates = torch.ones(len(batch["x"]), 8, requires_grad=True)
        maps = module[1](module[0](batch["x"])) * gates[..., None, None]
        task.loss(module[2:](maps), batch).backward()
        total += gates.grad.abs().sum(dim=0)
    assert torch.allclose(found["1"], total / 16, atol=1e-7)


def test_linear_layers_have_their_channels_last():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(3, 5)

        def forward(self, x):
            return self.up(x)

    class Plain:
        def forward(self, module, batch):
            return module(batch["x"])

    network, batch = Tokens(), {"x": torch.randn(2, 7, 3)}
    found = mean_activations(network, Plain(), [batch])
    assert torch.allclose(found["up"], network(batch["x"]).abs().mean(dim=(0, 1)), atol=1e-6)


def test_what_is_not_finite_is_named(measured):
    module, task, batches = measured
    with torch.no_grad():
        module[4].weight[0] = float("inf")
    with pytest.raises(TrainingError, match="layer 4 gives values that are not finite"):
        mean_activations(module, task, batches)


def test_nothing_is_left_on_the_network(measured):
    module, task, batches = measured
    mean_activations(module, task, batches)
    mean_saliencies(module, task, batches)
    assert not any(layer._forward_hooks for layer in module.modules())
    assert all(each.grad is None for each in module.parameters())
