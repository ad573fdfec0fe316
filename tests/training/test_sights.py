from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.errors import IncompatibleStep
from reuselib.testing.tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_resnet
from reuselib.training.sights import Sight, hidden_sights, positions, relation_sights, watched

IDS = torch.tensor([[5, 7, 9, 11], [6, 8, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import AutoModelForSequenceClassification

    folder = tiny_bert(tmp_path_factory.mktemp("bert"), head=True, num_layers=3)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def test_hidden_states_are_those_that_transformers_gives(bert):
    with (
        torch.inference_mode(),
        watched(bert, hidden_sights(bert, ("classifier",), (0, -1))) as seen,
    ):
        output = bert(IDS, attention_mask=MASK, output_hidden_states=True)

    assert seen["hidden.0"].equal(output.hidden_states[1])
    assert seen["hidden.-1"].equal(output.hidden_states[3])


def test_nothing_is_seen_afterwards(bert):
    with watched(bert, hidden_sights(bert, ("classifier",), (0,))) as seen:
        pass

    bert(IDS)

    assert seen == {}


def test_queries_keys_and_values_are_those_of_the_layers(bert):
    layer = bert.bert.encoder.layer[1]

    with torch.inference_mode(), watched(bert, relation_sights(bert, (1,))) as seen:
        before = bert(IDS, output_hidden_states=True).hidden_states[1]
        for name in ("query", "key", "value"):
            wanted = getattr(layer.attention.self, name)(before)
            assert seen[f"{name}.1"].equal(wanted)


def test_a_fused_layer_is_cut_into_its_three(tmp_path):
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(tiny_gpt2(tmp_path)).eval()
    block = module.transformer.h[0]

    with torch.inference_mode(), watched(module, relation_sights(module, (0,))) as seen:
        before = module(IDS, output_hidden_states=True).hidden_states[0]
        wanted = block.attn.c_attn(block.ln_1(before)).split(32, dim=-1)

    assert all(
        seen[f"{n}.0"].equal(w) for n, w in zip(("query", "key", "value"), wanted, strict=True)
    )


def test_keys_may_be_narrower_than_queries(tmp_path):
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path)).eval()

    with torch.inference_mode(), watched(module, relation_sights(module, (-1,))) as seen:
        module(IDS)

    assert [seen[f"{n}.-1"].shape[-1] for n in ("query", "key", "value")] == [32, 16, 16]


@pytest.mark.parametrize("at", [3, -4])
def test_a_block_that_is_not_there_is_refused(bert, at):
    for sights in (lambda: hidden_sights(bert, (), (at,)), lambda: relation_sights(bert, (at,))):
        with pytest.raises(IncompatibleStep, match=f"block {at}, but the network has 3 blocks"):
            sights()


def test_a_network_without_blocks_is_refused():
    with pytest.raises(IncompatibleStep, match="has 0 blocks"):
        hidden_sights(nn.Linear(2, 2), (), (-1,))


def test_relations_of_a_network_without_attention_are_refused(tmp_path):
    from transformers import AutoModelForImageClassification

    with pytest.raises(IncompatibleStep, match="resnet"):
        relation_sights(
            AutoModelForImageClassification.from_pretrained(tiny_resnet(tmp_path)), (0,)
        )


class TestPositions:
    def test_padding_is_left_out_on_either_side(self):
        values = torch.arange(16.0).reshape(2, 4, 2)

        for mask in (MASK, MASK.flip(1)):
            flat, counts = positions(values, mask)
            assert flat.equal(values[mask.bool()])
            assert counts.tolist() == [4, 2]

    def test_maps_of_images_have_a_position_a_pixel(self):
        values = torch.randn(2, 3, 4, 5)

        flat, counts = positions(values, None)

        assert flat.shape == (40, 3)
        assert flat[7].equal(values[0, :, 1, 2])
        assert counts.tolist() == [20, 20]

    def test_rows_of_numbers_have_one_position(self):
        values = torch.randn(3, 4)

        assert positions(values, None)[0].equal(values)
        assert positions(values, None)[1].tolist() == [1, 1, 1]


def test_columns_choose_a_part_of_an_output():
    layer = nn.Linear(2, 6)
    with watched(layer, [Sight("a", "", (2, 4))]) as seen:
        output = layer(torch.ones(1, 2))

    assert seen["a"].equal(output[:, 2:4])
