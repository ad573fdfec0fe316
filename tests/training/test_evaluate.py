from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import Points, Tokens, network, points, tagger, token_rows

from reuselib.errors import DataError
from reuselib.training.evaluate import evaluate, logits, observe

ROWS = token_rows(37, seed=4)


def test_observations_are_in_the_order_of_the_rows() -> None:
    module, task = tagger(), Tokens()

    observed = observe(module, ROWS, task, None, batch_size=5)

    for at, row in enumerate(ROWS):
        batch = task.collate([row], None)
        with torch.no_grad():
            alone = task.observe(task.forward(module, batch), batch)
        torch.testing.assert_close(observed["loss"][at], alone["loss"][0])
        assert observed["count"][at] == alone["count"][0]


def test_metrics_do_not_depend_on_the_batch_size() -> None:
    module = network()

    whole = evaluate(module, points(50), Points(), None, batch_size=50)

    assert evaluate(module, points(50), Points(), None, batch_size=7) == pytest.approx(whole)


def test_modes_gradients_and_dropout_are_left_alone() -> None:
    module = tagger(dropout=0.9).train()
    module.norm.eval()

    first = evaluate(module, ROWS, Tokens(), None)

    assert evaluate(module, ROWS, Tokens(), None) == first
    assert module.training
    assert module.dropout.training
    assert not module.norm.training
    assert all(parameter.grad is None for parameter in module.parameters())
    module(torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2)).sum().backward()


def test_logits_leave_padded_positions_out() -> None:
    module, task = tagger(), Tokens()

    found = logits(module, ROWS, task, None, batch_size=5)

    alone = []
    for row in ROWS:
        with torch.no_grad():
            alone.append(task.forward(module, task.collate([row], None))[0])
    torch.testing.assert_close(found, torch.cat(alone))
    assert found.dtype == torch.float32


def test_logits_of_rows_are_one_a_row_in_fp32() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.half()

    found = logits(Half(), points(9), Points(), None, batch_size=4)

    assert found.shape == (9, 2)
    assert found.dtype == torch.float32


def test_no_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        evaluate(network(), [], Points(), None)
