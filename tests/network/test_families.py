from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from reuselib.errors import IncompatibleStep
from reuselib.network.families import family
from reuselib.network.layers import matrix
from reuselib.network.parts import block_names


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_every_part_is_found_with_its_size(name):
    module = zoo.network(name)

    found = family(module)

    assert found.model_type == name
    assert found.hidden_size == zoo.HIDDEN
    assert len(found.blocks) == (zoo.NUM_BLOCKS + 2 if name == "t5" else zoo.NUM_BLOCKS)
    for block in found.blocks:
        assert block.feed_forward.num_units == zoo.UNITS
        assert {each.num_units for each in block.feed_forward.up} == {zoo.UNITS}
        for attention in block.attentions:
            assert attention.num_heads == attention.query.num_units == 4
            groups = 2 if name in zoo.GROUPED else 4
            assert attention.num_groups == attention.key.num_units == groups
            assert attention.value.num_units == groups
            assert attention.head_dim == (16 if name in ("qwen3", "gemma") else zoo.HEAD_DIM)


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_blocks_are_counted_as_selectors_count_them(name):
    module = zoo.network(name)

    assert [block.name for block in family(module).blocks] == block_names(module, ())


@pytest.mark.parametrize(("name", "key"), [("bert", "num_hidden_layers"), ("gpt2", "n_layer")])
def test_the_only_block_of_a_transformer_is_still_one(name, key):
    module = zoo.network(name, **{key: 1})

    assert block_names(module, ()) == [family(module).blocks[0].name]


def test_the_blocks_of_an_encoder_come_before_those_of_a_decoder():
    found = family(zoo.network("t5"))

    assert [block.name for block in found.blocks] == [
        *(f"encoder.block.{i}" for i in range(3)),
        *(f"decoder.block.{i}" for i in range(2)),
    ]
    assert [len(block.attentions) for block in found.blocks] == [1, 1, 1, 2, 2]
    assert found.blocks[0].attention.head_bias
    assert not found.blocks[1].attention.head_bias


@pytest.mark.parametrize("name", ["gpt2", "phi3"])
def test_the_parts_of_a_fused_layer_lie_one_after_another(name):
    attention = family(zoo.network(name)).blocks[0].attention

    runs = [(p.start, p.stop) for p in (attention.query, attention.key, attention.value)]
    assert runs == (
        [(0, 32), (32, 64), (64, 96)] if name == "gpt2" else [(0, 32), (32, 48), (48, 64)]
    )


def test_a_projection_is_split_into_heads_as_the_network_does():
    module = zoo.network("phi3")
    attention = family(module).blocks[0].attention
    output = torch.randn(2, 5, 64)

    keys = attention.key.of(output)

    assert keys.shape == (2, 5, 2, 8)
    assert torch.equal(keys[:, :, 1], output[..., 40:48])


def test_an_encoder_alone_has_one_stack():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, vocab_size=20)
    found = family(T5EncoderModel(config))

    assert found.stacks == ("encoder.block",)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_silencing_a_head_by_its_columns_is_what_the_docs_say(name):
    module = zoo.network(name)
    before = zoo.outputs(module, name)
    attention = family(module).blocks[0].attention
    layer = module.get_submodule(attention.output)

    with torch.no_grad():
        matrix(layer)[:, attention.columns(1)] = 0

    zeros = (layer.weight == 0).all(dim=1 if name == "gpt2" else 0)
    assert zeros.nonzero().flatten().tolist() == list(range(8, 16))
    assert not torch.equal(zoo.outputs(module, name), before)


def test_a_family_without_a_table_is_refused_with_those_that_have_one():
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=24, vocab_size=20
    )

    with pytest.raises(IncompatibleStep, match="of the family 'albert'") as caught:
        family(AlbertModel(config))
    assert "bert, deberta-v2, distilbert" in caught.value.expected


def test_what_is_no_transformer_is_refused():
    with pytest.raises(IncompatibleStep, match="no transformer"):
        family(nn.Sequential(nn.Linear(2, 2)))


def test_a_network_that_is_built_otherwise_is_refused():
    module = zoo.network("bert")
    module.bert.encoder.layer[1].intermediate = nn.Identity()

    with pytest.raises(IncompatibleStep, match=r"its block bert\.encoder\.layer\.1"):
        family(module)
