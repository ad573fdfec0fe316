"""What a choice of heads, units, channels and blocks means for the tensors, and which choices are refused."""

from __future__ import annotations

import pytest
from torch import nn

import zoo
from reuselib.errors import IncompatibleStep
from reuselib.network.axes import HIDDEN, Keep, is_like, layout, plan
from reuselib.network.families import family


def heads(module, *choices):
    """The same heads for all attentions, or one choice for each."""
    names = [a.name for block in family(module).blocks for a in block.attentions]
    chosen = choices * len(names) if len(choices) == 1 else choices
    return Keep(heads=dict(zip(names, chosen, strict=False)))


def test_keeping_everything_cuts_nothing():
    module = zoo.network("bert")

    found = plan(module, Keep(hidden=range(zoo.HIDDEN), blocks=range(zoo.NUM_BLOCKS)))

    assert not found.tensors
    assert not found.blocks


def test_a_dropped_block_leaves_nothing_to_cut_in_it():
    module = zoo.network("bert")
    units = {block.name: range(4) for block in family(module).blocks}

    found = plan(module, Keep(units=units, blocks=[0, 2]))

    assert found.blocks["bert.encoder.layer"].keep == (0, 2)
    assert not [name for name in (*found.tensors, *found.axes) if ".layer.1." in name]


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_every_tensor_is_laid_out_along_its_axes(name):
    module = zoo.network(name)

    found = layout(module, hidden=True)

    state = module.state_dict()
    for tensor in found.tensors:
        for dim, size in enumerate(state[tensor].shape):
            assert found.length(tensor, dim) in (None, size)
    # what lies along no axis: output biases, norms of one head, the relative positions of T5 lie along heads
    assert all(
        n.endswith(("bias", "q_norm.weight", "k_norm.weight"))
        for n in state
        if n not in found.tensors
    )


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        (Keep(blocks=[]), "are to stay"),
        (Keep(blocks=[0, 3]), "blocks 0 to 2"),
        (Keep(hidden=[]), "of the 32 of hidden"),
        (Keep(hidden=[32]), "of the 32 of hidden"),
        (Keep(units={"bert.encoder.layer.0": [48]}), "of the 48 of"),
    ],
)
def test_nothing_or_too_much_is_refused(keep, told):
    with pytest.raises(IncompatibleStep, match=told):
        plan(zoo.network("bert"), keep)


def test_groups_of_unequal_size_are_refused():
    module = zoo.network("llama")

    with pytest.raises(IncompatibleStep, match=r"would serve \[1, 2\] query heads"):
        plan(module, heads(module, [0, 1, 2]))


def test_heads_of_t5_belong_together_in_a_stack():
    module = zoo.network("t5")

    with pytest.raises(IncompatibleStep, match="share what is computed for each"):
        plan(module, heads(module, [0, 1], [1, 2]))
    plan(module, heads(module, [0, 1]))


@pytest.mark.parametrize("name", ["t5", "deberta-v2"])
def test_the_first_block_stays_where_others_rely_on_it(name):
    module = zoo.network(name)
    num_blocks = len(family(module).blocks)

    with pytest.raises(IncompatibleStep, match="first block of"):
        plan(module, Keep(blocks=range(1, num_blocks)))


def test_a_stack_cannot_lose_all_blocks():
    with pytest.raises(IncompatibleStep, match=r"no block would stay in decoder\.block"):
        plan(zoo.network("t5"), Keep(blocks=[0, 1, 2]))


def test_a_part_that_is_in_no_table_is_not_guessed():
    module = zoo.network("bert")
    module.gauge = nn.Linear(zoo.HIDDEN, 3)

    with pytest.raises(IncompatibleStep, match=r"gauge\.weight depends on the hidden state"):
        plan(module, Keep(hidden=range(24)))
    plan(module, heads(module, [0]))


def test_a_layer_of_another_width_is_refused():
    module = zoo.network("bert")
    module.classifier = nn.Linear(2 * zoo.HIDDEN, 2)

    with pytest.raises(IncompatibleStep, match=r"classifier\.weight has shape \(2, 64\)"):
        plan(module, Keep(hidden=range(24)))


def test_heads_hang_together_with_what_computes_them():
    module = zoo.network("t5")
    found = plan(module, heads(module, [0, 2]))
    name = "encoder.block.0.layer.0.SelfAttention"

    assert found.indices(f"{name}.q.weight", 0) == [*range(8), *range(16, 24)]
    assert found.indices(f"{name}.o.weight", 1) == [*range(8), *range(16, 24)]
    assert found.indices(f"{name}.relative_attention_bias.weight", 1) == [0, 2]
    assert HIDDEN not in found.axes


def test_patterns_begin_at_a_dot():
    assert is_like("bert.embeddings.LayerNorm", ("*LayerNorm",))
    assert is_like("model.norm", ("norm",))
    assert not is_like("model.subnorm", ("norm",))
    assert is_like("x.embeddings.word_embeddings", ("embeddings.*_embeddings",))
