from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from reuselib.training.dropout import noise, swift_dropout

CPU = torch.device("cpu")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_noise_has_the_right_probability_mean_and_no_pattern(p: float) -> None:
    torch.manual_seed(0)

    values = noise((1000, 1001), p)

    kept = values > 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=2e-3)
    assert values.double().mean().item() == pytest.approx(1.0, abs=2e-2)
    assert values.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)
    # Neighbours along both axes decide independently.
    for shifted in (kept[:, 1:] & kept[:, :-1], kept[1:] & kept[:-1]):
        assert shifted.float().mean().item() == pytest.approx((1 - p) ** 2, abs=3e-3)


def test_dropout_repeats_with_the_seed_and_differs_between_calls() -> None:
    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(1)
        ones = torch.ones(64, 128)
        with swift_dropout(CPU):
            return functional.dropout(ones, 0.3), nn.Dropout(0.3)(ones)

    first, second = draw()

    assert not torch.equal(first, second)
    assert all(map(torch.equal, draw(), (first, second)))


def test_the_gradient_passes_where_the_value_did() -> None:
    value = torch.ones(64, 128, requires_grad=True)

    with swift_dropout(CPU):
        out = functional.dropout(value, 0.3)
        out.sum().backward()

    assert torch.equal(value.grad, out.detach())
    assert 0.25 < (out == 0).float().mean() < 0.35


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_activations_meet_the_same_mask(reentrant: bool) -> None:
    def block(value: torch.Tensor) -> torch.Tensor:
        return functional.dropout(value * value, 0.5).exp()

    value = torch.linspace(0.5, 1, 8192, requires_grad=True)
    with swift_dropout(CPU):
        out = checkpoint(block, value, use_reentrant=reentrant)
        out.sum().backward()

    dropped = out == 1.0
    assert 0.45 < dropped.float().mean() < 0.55
    assert torch.equal(value.grad == 0.0, dropped)


@pytest.mark.parametrize("masked", ["none", "bool", "float"])
def test_attention_is_torchs_but_for_the_noise(
    masked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    query, key, value = torch.randn(3, 2, 4, 16, 64).unbind(0)
    mask = torch.rand(2, 1, 16, 16) > 0.3
    mask[0, 0, 0] = False  # a row that may look at nothing
    given = {"none": None, "bool": mask, "float": torch.randn(2, 1, 16, 16)}[masked]
    expected = functional.scaled_dot_product_attention(query, key, value, given)
    # With all noise at 1 what remains is attention without dropout.
    monkeypatch.setattr(
        "reuselib.training.dropout.noise", lambda shape, p: torch.ones(tuple(shape))
    )

    with swift_dropout(CPU):
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=given, dropout_p=0.5
        )

    torch.testing.assert_close(found, expected)


def test_attention_drops_weights() -> None:
    query = torch.zeros(1, 1, 64, 64)

    with swift_dropout(CPU):
        found = functional.scaled_dot_product_attention(
            query, query, torch.ones(1, 1, 64, 64), dropout_p=0.5
        )

    assert found.mean().item() == pytest.approx(1.0, abs=0.05)
    assert found.std().item() > 0.05


def test_torch_answers_where_nothing_is_to_be_gained() -> None:
    def both(value: torch.Tensor, **options: bool) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(4)
        theirs = functional.dropout(value.clone(), 0.3, **options)
        torch.manual_seed(4)
        with swift_dropout(CPU):
            return functional.dropout(value.clone(), 0.3, **options), theirs

    for found, expected in (
        both(torch.ones(8)),
        both(torch.ones(8192, dtype=torch.float64)),
        both(torch.ones(8192), training=False),
        both(torch.ones(8192), inplace=True),
    ):
        assert torch.equal(found, expected)
