from __future__ import annotations

import pytest
import torch
from torch import nn

from calibration.networks import NETWORKS, AnyTask, batches, layers_of, network, plain_inputs
from reuselib.calibration.statistics import as_matrix
from reuselib.calibration.streaming import stream
from reuselib.quantization.folding import Fold, balance

TASK = AnyTask()

FOLDS = {
    # the norm comes after the sum, which needs its outputs as they are: only values can be scaled
    "bert": {"attention.self.value": ["attention.output.dense"]},
    "vit": {
        "layernorm_before": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attention.v_proj": ["attention.o_proj"],
        "layernorm_after": ["mlp.fc1"],
    },
    "gpt2": {"ln_1": ["attn.c_attn"], "ln_2": ["mlp.c_fc"]},
    "llama": {
        "input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attn.v_proj": ["self_attn.o_proj"],
        "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
        "mlp.up_proj": ["mlp.down_proj"],
    },
    # two query heads share the values of one, so values and what attention gives do not match
    "qwen3": {
        "input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
        "mlp.up_proj": ["mlp.down_proj"],
    },
    "gemma2": {
        "input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "pre_feedforward_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
        "mlp.up_proj": ["mlp.down_proj"],
    },
}


def random_factor(weights, statistics):
    random = torch.Generator().manual_seed(int(statistics.num_tokens))
    return 0.2 + 3 * torch.rand(len(statistics.norm), generator=random)


@pytest.mark.parametrize("family", FOLDS)
def test_every_block_folds_what_the_family_allows(family):
    module = network(family)

    for visit in stream(module, TASK, batches(family), layers_of(module)):
        folds = balance(module, visit, random_factor).folds
        if visit.block:
            prefix = f"{visit.block}."
            found = {
                fold.source.removeprefix(prefix): [t.removeprefix(prefix) for t in fold.targets]
                for fold in folds
            }
            assert found == FOLDS[family]
            assert {fold.offset for fold in folds if "norm" in fold.source} <= {family == "gemma2"}


@pytest.mark.parametrize("family", NETWORKS)
def test_outputs_stay_and_statistics_follow(family):
    module, rows = network(family), batches(family)
    before = [TASK.forward(module, batch).detach() for batch in rows]

    for visit in stream(module, TASK, rows, layers_of(module)):
        balanced = balance(module, visit, random_factor)
        expected = plain_inputs(module, list(balanced.layers), rows)
        for name, statistics in balanced.layers.items():
            torch.testing.assert_close(
                statistics.abs_max, expected[name].abs().amax(dim=0), rtol=1e-3, atol=1e-4
            )

    for batch, old in zip(rows, before, strict=True):
        torch.testing.assert_close(TASK.forward(module, batch), old, rtol=1e-3, atol=1e-3)


def test_trying_leaves_no_trace():
    module = network("llama")
    before = {name: value.clone() for name, value in module.state_dict().items()}

    for visit in stream(module, TASK, batches("llama"), layers_of(module)):
        balance(module, visit, lambda weights, statistics: torch.ones_like(statistics.norm))

    assert all(value.equal(before[name]) for name, value in module.state_dict().items())


def test_layers_that_share_the_input_are_scaled_even_if_they_were_not_asked_for():
    module = network("llama")
    names = [f"model.layers.{at}.self_attn.q_proj" for at in range(3)]

    visit = next(stream(module, TASK, batches("llama"), names))
    balanced = balance(module, visit, random_factor)

    assert balanced.folds == (
        Fold(
            "model.layers.0.input_layernorm",
            tuple(f"model.layers.0.self_attn.{each}_proj" for each in "qkv"),
        ),
    )
    assert list(balanced.layers) == names[:1]


class Gate(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.up, self.between, self.down = nn.Linear(8, 8), between, nn.Linear(8, 8)

    def forward(self, x):
        return self.down(self.between(self.up(x)))


@pytest.mark.parametrize(
    ("between", "folds"),
    [(nn.ReLU(), True), (nn.Identity(), True), (nn.GELU(), False), (nn.Tanh(), False)],
    ids=str,
)
def test_what_minds_the_scale_cannot_be_folded_through(between, folds):
    torch.manual_seed(0)
    module, rows = nn.Sequential(Gate(between), Gate(between)), [{"input": torch.randn(20, 8)}]

    for visit in stream(module, TASK, rows, ["0.down", "1.down"]):
        found = balance(module, visit, random_factor).folds
        expected = Fold(f"{visit.block}.up", (f"{visit.block}.down",))
        assert found == ((expected,) if folds else ())


def test_zeros_stay_zero():
    module = network("llama")
    with torch.no_grad():
        for name in layers_of(module):
            as_matrix(module.get_submodule(name))[:, ::2] = 0

    for visit in stream(module, TASK, batches("llama"), layers_of(module)):
        balance(module, visit, random_factor)

    for name in layers_of(module):
        assert not as_matrix(module.get_submodule(name))[:, ::2].any()
