"""A few blocks tell of many that are alike, and only of these."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from reuselib.measure.footprint import Lesson, of_forward, of_training
from reuselib.measure.repeats import alike, only
from reuselib.network.parts import block_names
from reuselib.training.plan import FitPlan

NUM_BLOCKS, CPU = 9, torch.device("cpu")


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=900,
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=NUM_BLOCKS,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


def bert() -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=90,
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=NUM_BLOCKS,
            num_attention_heads=4,
        )
    )


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=32, n_layer=NUM_BLOCKS, n_head=4))


def sketched(make) -> nn.Module:
    with torch.device("meta"):
        return make()


def lesson(num_batches: int, precision: str) -> Lesson:
    ids = torch.zeros(3, 20, dtype=torch.long)
    return Lesson(
        plan=FitPlan(),
        batches=[{"input_ids": ids, "attention_mask": torch.ones_like(ids)}] * num_batches,
        loss=lambda module, batch: module(**batch).logits.float().logsumexp(-1).sum(),
        precision=precision,
    )


@pytest.mark.parametrize("make", [llama, bert, gpt2])
@pytest.mark.parametrize("learning", ["all", "norms"])
def test_a_deep_network_takes_what_two_short_ones_tell(make, learning):
    module = sketched(make)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(learning == "all" or "norm" in name.lower() or ".ln_" in name)
    names = block_names(module, ())
    assert len(alike(module, names)) == NUM_BLOCKS

    for each in (lesson(1, "fp32"), lesson(2, "bf16")):
        whole = of_training(module, each, CPU)
        assert of_training(module, each, CPU, blocks=names) == whole
    batch = lesson(1, "fp32").batches[0]
    calls = [
        of_forward(module, batch, lambda given: module(**given).logits, CPU, blocks=blocks)
        for blocks in ((), names)
    ]
    assert calls[0] == calls[1]
    assert len(block_names(module, ())) == NUM_BLOCKS  # they are all back


def test_blocks_of_other_shapes_values_or_readiness_end_a_run():
    module = sketched(llama)
    names = block_names(module, ())

    module.model.layers[5].mlp.gate_proj.weight.requires_grad_(False)
    assert alike(module, names) == tuple(names[:5])
    module.model.layers[2].self_attn.scaling = 0.5
    assert alike(module, names) == tuple(names[6:])
    module.model.layers[7].mlp.up_proj = nn.Linear(32, 90, bias=False, device="meta")
    assert alike(module, names) == tuple(names[:2])


def test_blocks_that_share_weights_are_not_told_apart_from_one():
    module = sketched(llama)
    for layer in module.model.layers:
        layer.mlp = module.model.layers[0].mlp

    assert alike(module, block_names(module, ())) == ()


def test_a_network_that_counts_on_all_its_blocks_is_gone_through_whole():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = (nn.TransformerEncoderLayer(8, 2, 8) for _ in range(NUM_BLOCKS))
            self.blocks = nn.ModuleList(layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for at in range(NUM_BLOCKS):
                x = self.blocks[at](x)
            return x

    module = sketched(Counting)
    batch = {"x": torch.zeros(4, 2, 8)}
    names = block_names(module, ())
    assert len(alike(module, names)) == NUM_BLOCKS

    found = of_forward(module, batch, lambda given: module(given["x"]), CPU, blocks=names)

    assert found == of_forward(module, batch, lambda given: module(given["x"]), CPU)


def test_an_error_leaves_all_blocks_where_they_were():
    module = sketched(llama)
    names = block_names(module, ())
    before = list(module.model.layers)

    with pytest.raises(IndexError), only(module, names, 2):
        module.model.layers[2]

    assert list(module.model.layers) == before
    assert block_names(module, ()) == names
