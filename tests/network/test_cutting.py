"""Pruned = dense with silenced units, for every family and axis; what is cut can be said as data."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import zoo
from reuselib.errors import IntegrityError
from reuselib.network.axes import Keep, plan
from reuselib.network.cutting import Axis, Cut, cut, tied_names
from reuselib.network.families import family

CLOSE = {"rtol": 1e-4, "atol": 2e-5}

WRITES = (
    "output.dense",
    "pooler.dense",
    "out_lin",
    "lin2",
    "o_proj",
    "fc2",
    "down_proj",
    "c_proj",
    "SelfAttention.o",
    "EncDecAttention.o",
    "wo",
    "pre_classifier",
    "classifier.dense",
    "projection",
    "conv.conv",
)
"""Layers that add to the hidden state, written down apart from the tables."""


def silence(module, name, gone_heads=(), gone_units=()):
    """The dense network with heads and units that have no effect."""
    for block in family(module).blocks:
        columns = [column for head in gone_heads for column in block.attention.columns(head)]
        layers = [(a.output, columns) for a in block.attentions]
        for layer, dead in (*layers, (block.feed_forward.down, list(gone_units))):
            weight = module.get_submodule(layer).weight.data
            weight[(dead, slice(None)) if name == "gpt2" else (slice(None), dead)] = 0


def mask_hidden(module, keep):
    """The dense network whose hidden state is zero in the other channels, and whose norms do not count these."""
    gone = [index for index in range(zoo.HIDDEN) if index not in keep]

    def zero(layer, _, output):
        output = output.clone()
        output[
            (slice(None), gone) if isinstance(layer, (nn.Conv1d, nn.Conv2d)) else (..., gone)
        ] = 0
        return output

    def norm(layer, args, output):
        value = args[0].clone()
        value[..., gone] = 0
        result = torch.zeros_like(output)
        if isinstance(layer, nn.LayerNorm):
            part = value[..., keep]
            weight, bias = layer.weight[keep], layer.bias[keep]
            part = nn.functional.layer_norm(part, (len(keep),), weight, bias, layer.eps)
        else:
            squares = value.square().sum(-1, keepdim=True)
            epsilon = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
            mean = squares / len(keep) + epsilon
            shift = 1.0 if type(layer).__name__ == "GemmaRMSNorm" else 0.0
            part = (value / mean.sqrt() * (layer.weight + shift))[..., keep]
        result[..., keep] = part
        return result

    for name, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        if "norm" in type(layer).__name__.lower() and weight.shape == (zoo.HIDDEN,):
            layer.register_forward_hook(norm)
        elif isinstance(layer, nn.Embedding) and weight.shape[1] == zoo.HIDDEN:
            weight.data[:, gone] = 0
        elif name.endswith(WRITES):
            layer.register_forward_hook(zero)
    for name, parameter in module.named_parameters():
        if name.endswith(("cls_token", "position_embeddings")):
            parameter.data[..., gone] = 0
    if hasattr(module, "model_dim"):
        module.model_dim = len(keep)
    for layer in module.modules():
        if hasattr(layer, "embed_scale"):
            layer.embed_scale.fill_(len(keep) ** 0.5)


def pruned(module, keep):
    smaller = copy.deepcopy(module)
    cut(smaller, plan(module, keep))
    return smaller


def heads_of(module, heads):
    return {a.name: heads for block in family(module).blocks for a in block.attentions}


def units_of(module, units):
    return {block.name: units for block in family(module).blocks}


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_without_heads_is_as_if_they_were_silent(name):
    module = zoo.network(name)
    stay, gone = ([2, 3], [0, 1]) if name in zoo.GROUPED else ([0, 1, 3], [2])
    smaller = pruned(module, Keep(heads=heads_of(module, stay)))

    silence(module, name, gone_heads=gone)

    assert family(smaller).blocks[0].attention.num_heads == len(stay)
    torch.testing.assert_close(zoo.outputs(smaller, name), zoo.outputs(module, name), **CLOSE)


@pytest.mark.parametrize("name", zoo.GROUPED)
def test_a_key_value_head_may_serve_fewer(name):
    module = zoo.network(name)
    smaller = pruned(module, Keep(heads=heads_of(module, [1, 2])))

    silence(module, name, gone_heads=[0, 3])

    attention = family(smaller).blocks[0].attention
    assert (attention.num_heads, attention.num_groups) == (2, 2)
    torch.testing.assert_close(zoo.outputs(smaller, name), zoo.outputs(module, name), **CLOSE)


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_without_units_is_as_if_they_were_silent(name):
    module = zoo.network(name)
    smaller = pruned(module, Keep(units=units_of(module, range(5, zoo.UNITS))))

    silence(module, name, gone_units=range(5))

    torch.testing.assert_close(zoo.outputs(smaller, name), zoo.outputs(module, name), **CLOSE)


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_without_hidden_channels_is_as_if_they_were_zero_and_did_not_count(name):
    module = zoo.network(name)
    keep = [index for index in range(zoo.HIDDEN) if index % 4]
    smaller = pruned(module, Keep(hidden=keep))

    mask_hidden(module, keep)

    assert family(smaller).hidden_size == 24
    torch.testing.assert_close(zoo.outputs(smaller, name), zoo.outputs(module, name), **CLOSE)


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_without_a_block_is_as_if_it_handed_on_what_it_got(name):
    module = zoo.network(name)
    num_blocks = len(family(module).blocks)
    smaller = pruned(module, Keep(blocks=[i for i in range(num_blocks) if i != 1]))

    def hand_on(_, args, output):
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    module.get_submodule(family(module).blocks[1].name).register_forward_hook(hand_on)

    assert len(family(smaller).blocks) == num_blocks - 1
    torch.testing.assert_close(zoo.outputs(smaller, name), zoo.outputs(module, name), **CLOSE)


def test_blocks_may_differ_in_heads_and_units():
    module = zoo.network("phi3")
    first, second, _ = family(module).blocks
    keep = Keep(
        heads={first.attention.name: [0, 1], second.attention.name: [1, 2]},
        units={second.name: range(10)},
    )
    smaller = pruned(module, keep)

    for layer, gone in ((first.attention, [2, 3]), (second.attention, [0, 3])):
        columns = [column for head in gone for column in layer.columns(head)]
        module.get_submodule(layer.output).weight.data[:, columns] = 0
    module.get_submodule(second.feed_forward.down).weight.data[:, 10:] = 0

    torch.testing.assert_close(zoo.outputs(smaller, "phi3"), zoo.outputs(module, "phi3"), **CLOSE)
    torch.testing.assert_close(
        zoo.outputs(copy.deepcopy(smaller), "phi3"), zoo.outputs(smaller, "phi3"), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma", "t5"])
def test_what_is_tied_stays_tied(name):
    module = zoo.network(name)
    ties = tied_names(module)
    keep = Keep(hidden=range(8, zoo.HIDDEN))

    smaller = pruned(module, keep)

    assert ties
    assert tied_names(smaller) == ties
    assert smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_a_pruned_decoder_still_writes_as_it_reads(name):
    """Keys and values are kept under each block's number, which must have no gaps."""
    module = zoo.network(name)
    keep = Keep(heads=heads_of(module, [2, 3]), blocks=[0, 2])
    smaller = pruned(module, keep)
    words = torch.tensor([[5, 6, 7]])

    written = smaller.generate(words, max_new_tokens=4, do_sample=False, pad_token_id=0)

    for length in range(3, written.shape[1]):
        with torch.no_grad():
            logits = smaller(written[:, :length], use_cache=False).logits
        assert logits[0, -1].argmax() == written[0, length]


def test_parameters_keep_whether_they_learn():
    module = zoo.network("bert").requires_grad_(False)
    module.classifier.requires_grad_(True)

    smaller = pruned(module, Keep(hidden=range(24)))

    learning = {name for name, each in smaller.named_parameters() if each.requires_grad}
    assert learning == {"classifier.weight", "classifier.bias"}


class TestAsData:
    def cut(self):
        module = zoo.network("phi3")
        keep = Keep(
            heads=heads_of(module, [2, 3]),
            units=units_of(module, range(20)),
            hidden=range(24),
            blocks=[0, 2],
        )
        return module, plan(module, keep)

    def test_a_cut_survives_json(self):
        _, whole = self.cut()

        assert Cut.of_json(json.loads(json.dumps(whole.to_json()))) == whole

    def test_it_says_what_every_tensor_of_the_child_is(self):
        module, whole = self.cut()
        before = {name: value.clone() for name, value in module.state_dict().items()}

        cut(module, whole)

        expected = {
            whole.renamed(name): whole.survivor(name, value)
            for name, value in before.items()
            if whole.renamed(name) is not None
        }
        after = module.state_dict()
        assert after.keys() == expected.keys()
        assert all(torch.equal(after[name], value) for name, value in expected.items())

    def test_the_indices_of_a_fused_layer_are_those_of_its_parts(self):
        _, whole = self.cut()
        name = "model.layers.0.self_attn.qkv_proj.weight"

        assert whole.indices(name, 0) == [*range(16, 32), *range(40, 48), *range(56, 64)]
        assert whole.indices(name, 1) == list(range(24))

    @pytest.mark.parametrize(
        "axis",
        [
            {"size": 4, "keep": [0, 4]},
            {"size": 4, "keep": [1, 0]},
            {"size": 4, "keep": [0, 0]},
            {"size": 4, "keep": [-1]},
            {"size": 4, "keep": []},
            {"size": 4, "keep": [True]},
            {"size": 4},
            [4],
        ],
    )
    def test_what_is_no_axis_is_refused(self, axis):
        with pytest.raises(IntegrityError, match="no cut"):
            Cut.of_json({"axes": {"a": axis}, "tensors": {}, "blocks": {}})

    @pytest.mark.parametrize(
        "value", [None, 3, {}, {"axes": {}, "tensors": {"w": [[["a", 1]]]}, "blocks": {}}]
    )
    def test_what_is_no_cut_is_refused(self, value):
        with pytest.raises(IntegrityError, match=r"no cut|cut must be|cut.\w+ is missing"):
            Cut.of_json(value)

    def test_a_cut_of_another_network_changes_nothing(self):
        _, whole = self.cut()
        other = zoo.network("phi3", intermediate_size=40)
        state = {name: value.clone() for name, value in other.state_dict().items()}

        with pytest.raises(IntegrityError, match="shape"):
            cut(other, whole)
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())

    @pytest.mark.parametrize(
        ("plan", "told"),
        [
            (Cut({"a": Axis(2, (0,))}, {"no.such": ((("a", 1),),)}), "no tensor"),
            (Cut(blocks={"no.list": Axis(2, (0,))}), "no list"),
            (Cut(blocks={"bert.encoder.layer": Axis(2, (0,))}), "has 3 blocks"),
        ],
    )
    def test_a_cut_that_names_what_is_not_there_is_refused(self, plan, told):
        with pytest.raises(IntegrityError, match=told):
            cut(zoo.network("bert"), plan)

    def test_names_close_up_when_blocks_go(self):
        plan = Cut(blocks={"h": Axis(4, (0, 3))})

        assert plan.renamed("h.3.w") == "h.1.w"
        assert plan.renamed("h.3") == "h.1"
        assert plan.renamed("h.2.w") is None
        assert plan.renamed("hh.2.w") == "hh.2.w"
