from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from reuselib.errors import SelectorError
from reuselib.network.parts import parts
from reuselib.testing.tiny import tiny_bert, tiny_cnn, tiny_llama, tiny_resnet, tiny_vit


def bert(folder: Path) -> nn.Module:
    return AutoModelForSequenceClassification.from_pretrained(tiny_bert(folder, head=True))


def llama(folder: Path, *, tied: bool) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_llama(folder, tied=tied))


def check_partition(module: nn.Module, head: tuple[str, ...]) -> None:
    found = parts(module, head)
    pieces = [found.stem, *found.blocks, found.tail, found.head]
    names = [name for name, _ in module.named_parameters()]

    assert sorted(name for piece in pieces for name in piece) == sorted(names)
    assert found.depths.keys() == set(names)
    assert found.backbone | found.head == set(names)


def test_a_bert_is_embeddings_layers_pooler_and_classifier(tmp_path):
    module = bert(tmp_path)

    found = parts(module, ("classifier",))

    check_partition(module, ("classifier",))
    assert all(name.startswith("bert.embeddings.") for name in found.stem)
    assert len(found.blocks) == 2
    for index, block in enumerate(found.blocks):
        assert all(name.startswith(f"bert.encoder.layer.{index}.") for name in block)
        assert len(block) == 16
    assert found.tail == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert found.head == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("tied", [True, False])
def test_a_llama_counts_a_tied_embedding_once_and_in_the_stem(tmp_path, tied):
    module = llama(tmp_path, tied=tied)

    found = parts(module, ("lm_head",))

    check_partition(module, ("lm_head",))
    assert found.stem == {"model.embed_tokens.weight"}
    assert len(found.blocks) == 2
    assert found.tail == {"model.norm.weight"}
    assert found.head == (set() if tied else {"lm_head.weight"})


def test_a_vision_transformer_has_its_layers_as_blocks(tmp_path):
    module = AutoModelForImageClassification.from_pretrained(tiny_vit(tmp_path))

    found = parts(module, ("classifier",))

    check_partition(module, ("classifier",))
    assert len(found.blocks) == 2
    assert len({len(block) for block in found.blocks}) == 1
    assert found.tail == {"vit.layernorm.weight", "vit.layernorm.bias"}


def test_blocks_of_a_residual_network_are_counted_through_its_stages(tmp_path):
    module = AutoModelForImageClassification.from_pretrained(tiny_resnet(tmp_path))

    found = parts(module, ("classifier",))

    check_partition(module, ("classifier",))
    where = [f"resnet.encoder.stages.{s}.layers.{b}." for s in (0, 1) for b in (0, 1)]
    assert len(found.blocks) == 4
    for block, start in zip(found.blocks, where, strict=True):
        assert all(name.startswith(start) for name in block)
    assert all(name.startswith("resnet.embedder.") for name in found.stem)


def test_a_plain_cnn_is_cut_at_its_layers_and_norms_follow_them():
    module = tiny_cnn()

    found = parts(module, ("8",))

    check_partition(module, ("8",))
    assert [sorted(block) for block in found.blocks] == [
        ["0.bias", "0.weight", "1.bias", "1.weight"],
        ["3.bias", "3.weight"],
    ]
    assert found.tail == {"4.weight", "4.bias"}


def test_stages_that_are_plain_lists_are_looked_into():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3)
            self.down = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    module = nn.Module()
    module.conv1 = nn.Conv2d(1, 4, 3)
    module.layer1 = nn.Sequential(Block(), Block())
    module.layer2 = nn.Sequential(Block(), Block())
    module.fc = nn.Linear(4, 2)

    found = parts(module, ("fc",))

    check_partition(module, ("fc",))
    assert [len(block) for block in found.blocks] == [6, 6, 6, 6]
    assert found.stem == {"conv1.weight", "conv1.bias"}


def test_what_lies_between_blocks_goes_with_the_block_before():
    module = nn.ModuleDict({"stem": nn.Linear(2, 2)})
    module["first"] = nn.ModuleList([nn.TransformerEncoderLayer(2, 1, 4)])
    module["between"] = nn.Linear(2, 2)
    module["second"] = nn.ModuleList([nn.TransformerEncoderLayer(2, 1, 4)])

    found = parts(module, ())

    check_partition(module, ())
    assert "between.weight" in found.blocks[0]


def test_depth_rises_from_stem_to_head(tmp_path):
    depths = parts(bert(tmp_path), ("classifier",)).depths

    assert depths["bert.embeddings.word_embeddings.weight"] == 0
    assert depths["bert.encoder.layer.0.output.dense.weight"] == 1
    assert depths["bert.encoder.layer.1.output.dense.weight"] == 2
    assert depths["bert.pooler.dense.weight"] == depths["classifier.weight"] == 3


def test_a_network_without_lists_is_all_stem():
    module = nn.Linear(2, 2)

    found = parts(module, ())

    assert found.blocks == ()
    assert found.stem == {"weight", "bias"}


def test_an_unknown_head_is_an_error_that_lists_the_children():
    with pytest.raises(SelectorError, match="none of that name") as caught:
        parts(tiny_cnn(), ("classifier",))

    assert "8" in caught.value.expected
