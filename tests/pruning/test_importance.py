"""Scores against what they are said to be, worked out the long way."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

import zoo
from reuselib.errors import TrainingError
from reuselib.network.axes import HIDDEN
from reuselib.network.families import family
from reuselib.pruning.importance import by_chance, by_rows, by_weights


class Sums:
    """A task on rows of words; its loss is a sum over rows."""

    def forward(self, module, batch):
        return module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def loss(self, logits, batch):
        return nn.functional.cross_entropy(logits, batch["labels"], reduction="sum")


def batch(num_rows=3, length=7):
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(3, zoo.NUM_WORDS, (num_rows, length), generator=draw)
    mask = torch.ones_like(words)
    mask[0, 4:] = 0
    return {
        "input_ids": words,
        "attention_mask": mask,
        "labels": torch.tensor([0, 1, 1])[:num_rows],
    }


class TestMagnitude:
    def test_a_unit_is_as_large_as_the_weights_that_go_with_it(self):
        module = zoo.network("gpt2")
        part = family(module).blocks[1].feed_forward
        mlp = module.transformer.h[1].mlp

        scores = by_weights(module, hidden=False)

        squares = mlp.c_fc.weight.double().square().sum(0) + mlp.c_fc.bias.double().square()
        squares += mlp.c_proj.weight.double().square().sum(1)
        torch.testing.assert_close(scores[part.axis], squares.sqrt())
        assert HIDDEN not in scores

    def test_heads_and_their_groups_are_scored_apart(self):
        module = zoo.network("phi3")
        attention = family(module).blocks[0].attention
        layer = module.model.layers[0].self_attn

        scores = by_weights(module, hidden=False)

        qkv = layer.qkv_proj.weight.double().square().sum(1)
        heads = qkv[:32].view(4, 8).sum(1) + layer.o_proj.weight.double().square().sum(0).view(
            4, 8
        ).sum(1)
        torch.testing.assert_close(scores[attention.heads_axis], heads.sqrt())
        groups = (qkv[32:48] + qkv[48:]).view(2, 8).sum(1)
        torch.testing.assert_close(scores[attention.groups_axis], groups.sqrt())

    def test_a_tied_embedding_counts_once(self):
        module = zoo.network("qwen2")
        silent = copy.deepcopy(module)
        with torch.no_grad():
            silent.model.embed_tokens.weight[:, 5] = 0

        gone = [by_weights(each, hidden=True)[HIDDEN][5].square() for each in (module, silent)]

        column = module.model.embed_tokens.weight[:, 5].double().square().sum()
        torch.testing.assert_close(gone[0] - gone[1], column)


class TestRows:
    task: ClassVar = Sums()

    @pytest.mark.parametrize("measure", ["activation", "taylor"])
    def test_padding_does_not_count(self, measure):
        module = zoo.network("bert")
        short = {**batch(1), "labels": torch.tensor([0])}
        long = {**short, "input_ids": short["input_ids"].clone()}
        cut = {k: v[:, :4] if v.dim() > 1 else v for k, v in short.items()}
        long["input_ids"][0, 4:] = 9

        first, second, third = (
            by_rows(module, [each], self.task, measure) for each in (short, long, cut)
        )

        for axis, score in first.items():
            torch.testing.assert_close(score, second[axis], rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(score, third[axis], rtol=1e-4, atol=1e-7)

    def test_activation_is_the_mean_over_tokens(self):
        module = zoo.network("bert")
        rows, seen = batch(), {}
        part = family(module).blocks[1]
        for name in (part.feed_forward.down, part.attention.output):
            module.get_submodule(name).register_forward_pre_hook(
                lambda _, args, name=name: seen.update({name: args[0].double()})
            )

        scores = by_rows(module, [rows], self.task, "activation")

        real = rows["attention_mask"].bool()
        units = seen[part.feed_forward.down].abs()[real].mean(0)
        torch.testing.assert_close(scores[part.feed_forward.axis], units)
        heads = seen[part.attention.output].abs()[real].view(-1, 4, 8).mean((0, 2))
        torch.testing.assert_close(scores[part.attention.heads_axis], heads)

    @pytest.mark.parametrize("axis", ["units", "heads", "hidden"])
    def test_taylor_is_the_slope_of_each_rows_loss_by_the_unit(self, axis):
        """Against the loss itself, with the unit made a little smaller and larger."""
        module = zoo.network("bert").double()
        rows, unit, step = batch(), 2, 1e-5
        block = family(module).blocks[0]
        name, key = {
            "units": (block.feed_forward.down, block.feed_forward.axis),
            "heads": (block.attention.output, block.attention.heads_axis),
            "hidden": ("bert.encoder.layer", HIDDEN),
        }[axis]
        entries = list(block.attention.columns(unit)) if axis == "heads" else [unit]
        places = [f"{name}.{i}" for i in range(3)] if axis == "hidden" else [name]

        def losses(factor):
            def scale(_, args):
                value = args[0].clone()
                real = rows["attention_mask"].bool()
                for entry in entries:
                    value[..., entry] = torch.where(
                        real, value[..., entry] * factor, value[..., entry]
                    )
                return (value, *args[1:])

            hooks = [module.get_submodule(p).register_forward_pre_hook(scale) for p in places]
            with torch.no_grad():
                logits = self.task.forward(module, rows)
            for hook in hooks:
                hook.remove()
            return nn.functional.cross_entropy(logits, rows["labels"], reduction="none")

        slope = (losses(1 + step) - losses(1 - step)) / (2 * step)
        scores = by_rows(module, [rows], self.task, "taylor")

        torch.testing.assert_close(scores[key][unit], slope.abs().mean(), rtol=1e-5, atol=1e-9)

    def test_batches_add_up(self):
        module = zoo.network("bert")
        rows = batch()
        parts = [{k: v[i : i + 1] for k, v in rows.items()} for i in range(3)]

        for measure in ("activation", "taylor"):
            whole, pieces = (by_rows(module, each, self.task, measure) for each in ([rows], parts))
            for axis, score in whole.items():
                torch.testing.assert_close(score, pieces[axis], rtol=1e-4, atol=1e-7)

    def test_frozen_networks_are_scored_and_nothing_is_left_behind(self):
        module = zoo.network("bert").requires_grad_(False)

        scores = by_rows(module, [batch()], self.task, "taylor")

        assert all(score.isfinite().all() for score in scores.values())
        assert all(parameter.grad is None for parameter in module.parameters())
        assert not any(each._forward_pre_hooks for each in module.modules())

    def test_a_value_that_is_not_finite_is_named(self):
        module = zoo.network("bert")
        module.bert.encoder.layer[1].output.dense.weight.data[0, 0] = float("nan")

        with pytest.raises(TrainingError, match="batch 0 of the calibration rows"):
            by_rows(module, [batch()], self.task, "activation")


@pytest.mark.parametrize("name", ["llama", "t5", "vit", "deberta-v2"])
@pytest.mark.parametrize("measure", ["activation", "taylor"])
def test_every_kind_of_network_is_scored(name, measure):
    class Outputs:
        def forward(self, module, inputs):
            return module(**{k: v for k, v in inputs.items() if k != "targets"}).logits

        def loss(self, logits, _):
            return logits.float().square().sum()

    module = zoo.network(name)
    scores = by_rows(module, [zoo.inputs(name)], Outputs(), measure)

    found = family(module)
    wanted = {HIDDEN, *(b.feed_forward.axis for b in found.blocks)}
    wanted |= {a.heads_axis for b in found.blocks for a in b.attentions}
    assert scores.keys() == wanted
    assert all(score.isfinite().all() and (score > 0).any() for score in scores.values())


def test_chance_is_drawn_from_the_generator():
    module = zoo.network("bert")

    torch.manual_seed(0)
    first = by_chance(module)
    torch.manual_seed(0)
    again = by_chance(module)

    assert all(torch.equal(first[axis], again[axis]) for axis in first)
    assert len({float(score[0]) for score in first.values()}) == len(first)
