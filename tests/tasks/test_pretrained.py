from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging

from reuselib.errors import SourceError
from reuselib.tasks import pretrained
from reuselib.testing.tiny import tiny_bert, tiny_llama


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"), head=True)


# peft asks the network by a name that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_head_is_found_through_a_wrapper(bert):
    module = AutoModelForSequenceClassification.from_pretrained(bert)

    wrapped = get_peft_model(module, LoraConfig(target_modules=["query"], r=2))

    assert pretrained.head(wrapped) == ("base_model.model.classifier",)
    assert pretrained.accepted_inputs(wrapped, ("input_ids", "nonsense")) == ["input_ids"]


def test_a_network_that_is_no_transformer_has_no_head():
    assert pretrained.head(torch.nn.Linear(1, 1)) == ()


def test_an_output_layer_is_the_head_even_if_tied(tmp_path):
    module = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path))

    assert pretrained.head(module) == ("lm_head",)


def test_reading_prints_nothing_and_leaves_the_logging_as_it_was(bert, tmp_path, capfd):
    from reuselib.tasks.text_classification import TextClassification

    logging.enable_progress_bar()
    before = logging.get_verbosity()
    task = TextClassification(labels=("a", "b", "c"))

    loaded = task.load(bert)
    task.save(loaded.module, loaded.processor, tmp_path / "child")

    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert logging.get_verbosity() == before
    assert logging.is_progress_bar_enabled()


def test_private_notes_of_others_are_not_passed_on(bert, tmp_path):
    from reuselib.tasks.text_classification import TextClassification

    base = tmp_path / "base"
    base.mkdir()
    for path in bert.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((base / name).read_text())
        private = {"_name_or_path": "/home/ann/m", "special_tokens_map_file": "/home/ann/s.json"}
        (base / name).write_text(json.dumps({**content, **private}))
    task = TextClassification(labels=("a", "b"))

    loaded = task.load(base)
    task.save(loaded.module, loaded.processor, tmp_path / "child")

    for path in (tmp_path / "child").iterdir():
        assert b"/home/ann" not in path.read_bytes(), path.name


def test_an_unknown_architecture_is_an_error_that_says_so(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')

    with pytest.raises(SourceError, match="no_such_model"):
        pretrained.read_config(tmp_path)
