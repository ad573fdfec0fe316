from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reuselib.errors import SourceError
from reuselib.tasks import tokens
from reuselib.testing.tiny import tiny_bert, tiny_llama


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_that_of_the_tokenizer_on_either_side(tokenizer, side):
    texts = ["the film was good", "bad", "it is a very bright day"]
    expected = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")

    batch = tokens.pad(tokens.tokenize(tokenizer, texts, None, 16), tokenizer, side=side)

    assert batch.keys() == set(expected)
    assert all(torch.equal(batch[name], value) for name, value in expected.items())


def test_no_text_gives_no_example(tokenizer):
    assert tokens.tokenize(tokenizer, [], None, 16) == []


def test_ids_are_kept_small(tokenizer):
    (example,) = tokens.tokenize(tokenizer, ["good"], None, 16)

    assert example.keys() == {"input_ids", "token_type_ids"}
    assert all(value.dtype == np.int32 for value in example.values())


def test_a_tokenizer_that_cannot_pad_pads_with_its_end_token(tmp_path):
    folder = tiny_llama(tmp_path)
    module = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    tokens.fit_for_padding(tokenizer, module)

    assert tokenizer.pad_token == "</s>"
    assert module.config.pad_token_id == tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(SourceError, match="neither a padding nor an end token"):
        tokens.fit_for_padding(tokenizer, module)


def test_a_folder_without_tokenizer_is_named(tmp_path):
    folder = tiny_bert(tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink()

    with pytest.raises(SourceError, match="'model' holds no tokenizer"):
        tokens.read_tokenizer(folder, None, max_length=16)
