"""Whether plain transformers opens what was cut, and that it then computes the same."""

from __future__ import annotations

import pytest
import torch

import zoo
from reuselib.network.axes import Keep, plan
from reuselib.network.families import family
from reuselib.network.stating import is_described, resize

BOUND = ("bert", "roberta", "distilbert", "deberta-v2", "gpt2")
"""Their configurations take heads times their width for the hidden width."""


def keep(module, axis):
    found = family(module)
    attentions = [a for block in found.blocks for a in block.attentions]
    heads = {a.name: [2, 3] for a in attentions}
    units = {block.name: range(0, zoo.UNITS, 2) for block in found.blocks}
    blocks = [i for i in range(len(found.blocks)) if i != 1]
    return {
        "heads": Keep(heads=heads),
        "units": Keep(units=units),
        "hidden": Keep(hidden=range(24)),
        "blocks": Keep(blocks=blocks),
        "all": Keep(heads=heads, units=units, hidden=range(0, zoo.HIDDEN, 2), blocks=blocks),
    }[axis]


@pytest.mark.parametrize("axis", ["heads", "units", "hidden", "blocks", "all"])
@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_transformers_opens_it_where_a_configuration_can_say_it(name, axis, tmp_path):
    module = zoo.network(name)
    unsaid = name in BOUND and axis in ("heads", "hidden")
    before = module.config.to_dict()

    stock = resize(module, plan(module, keep(module, axis)))

    assert stock is not unsaid
    if unsaid:
        assert module.config.to_dict() == before
        return
    module.save_pretrained(tmp_path)
    opened, report = zoo.auto(name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(zoo.outputs(opened.eval(), name), zoo.outputs(module, name))


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("bert", "BertForPreTraining"),
        ("bert", "BertModel"),
        ("roberta", "RobertaForMaskedLM"),
        ("distilbert", "DistilBertForMaskedLM"),
        ("deberta-v2", "DebertaV2ForMaskedLM"),
        ("vit", "ViTModel"),
        ("gpt2", "GPT2ForSequenceClassification"),
        ("llama", "LlamaForTokenClassification"),
        ("t5", "T5ForSequenceClassification"),
        ("t5", "T5EncoderModel"),
    ],
)
def test_heads_and_poolers_go_along_with_the_hidden_state(name, network):
    import transformers

    module = getattr(transformers, network)(zoo.network(name).config)

    assert resize(module, plan(module, keep(module, "all")))
    assert family(module).hidden_size == 16


def test_the_configuration_says_the_new_sizes():
    module = zoo.network("qwen3")

    resize(module, plan(module, keep(module, "all")))

    config = module.config
    assert config.num_attention_heads == 2
    assert config.num_key_value_heads == 1
    assert config.head_dim == 16
    assert config.intermediate_size == 24
    assert config.hidden_size == 16
    assert config.num_hidden_layers == 2
    assert len(config.layer_types) == 2


def test_kinds_of_layers_go_with_their_blocks():
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    module = zoo.network("qwen2", layer_types=kinds, sliding_window=4, use_sliding_window=True)

    assert resize(module, plan(module, Keep(blocks=[1, 2])))
    assert module.config.layer_types == ["sliding_attention", "full_attention"]


def test_a_stack_of_t5_has_its_own_number_of_blocks():
    module = zoo.network("t5")

    assert resize(module, plan(module, Keep(blocks=[0, 2, 3])))
    assert module.config.num_layers == 2
    assert module.config.num_decoder_layers == 1
    assert module.encoder.config.num_layers == 2
    assert module.decoder.config.num_layers == 1


def test_uneven_blocks_cannot_be_said_and_compute_the_same_when_cut_again():
    module, other = zoo.network("phi3"), zoo.network("phi3")
    first = family(module).blocks[0].attention.name
    chosen = plan(module, Keep(heads={first: [0, 1]}))

    assert not resize(module, chosen)
    assert not resize(other, chosen)
    assert module.config.num_attention_heads == 4
    assert torch.equal(zoo.outputs(module, "phi3"), zoo.outputs(other, "phi3"))


def test_what_its_configuration_did_not_describe_stays_undescribed():
    module = zoo.network("bert")
    assert not resize(module, plan(module, keep(module, "heads")))

    assert not resize(module, plan(module, keep(module, "units")))
    assert module.config.intermediate_size == zoo.UNITS


def test_a_scale_that_the_configuration_would_set_otherwise_counts():
    module = zoo.network("gpt2", scale_attn_by_inverse_layer_idx=True)
    before = zoo.network("gpt2", scale_attn_by_inverse_layer_idx=True)

    assert is_described(module, module.config)
    assert not resize(module, plan(module, Keep(blocks=[0, 2])))
    assert module.transformer.h[1].attn.scaling == before.transformer.h[2].attn.scaling


def test_a_configuration_that_cannot_be_built_describes_nothing():
    module = zoo.network("bert")
    config = type(module.config)(**{**module.config.to_dict(), "num_attention_heads": 5})

    assert not is_described(module, config)


def test_looking_does_not_move_the_generator():
    module = zoo.network("bert")
    torch.manual_seed(3)
    expected = torch.rand(1)

    torch.manual_seed(3)
    is_described(module, module.config)

    assert torch.equal(torch.rand(1), expected)


def test_a_llama_says_only_heads_that_divide_its_hidden_width(tmp_path):
    def without(*gone):
        module = zoo.network("llama", num_attention_heads=8, num_key_value_heads=8)
        stay = [head for head in range(8) if head not in gone]
        names = [block.attention.name for block in family(module).blocks]
        return resize(module, plan(module, Keep(heads=dict.fromkeys(names, stay))))

    assert without(0, 3, 5, 6)
    assert not without(0, 3)


def test_long_rope_goes_with_the_width_that_the_configuration_gives_a_head():
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 32,
    }
    module = zoo.network("phi3", rope_parameters=rope, original_max_position_embeddings=32)
    assert is_described(module, module.config)

    assert not resize(module, plan(module, keep(module, "heads")))
    assert zoo.outputs(module, "phi3").isfinite().all()
