from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from transformers.utils import logging

from reuselib.errors import SourceError
from reuselib.tasks import pretrained
from reuselib.testing.tiny import tiny_bert, tiny_llama, tiny_vit


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


@pytest.mark.parametrize("bare", [False, True])
def test_names_that_transformers_changes_are_noted(tmp_path, bare):
    """ViT was written anew since its weights were published; its files keep the old names."""
    folder = tiny_vit(tmp_path / "base")
    if bare:
        folder = tmp_path / "bare"
        AutoModelForImageClassification.from_pretrained(tmp_path / "base").vit.save_pretrained(
            folder
        )
    config = pretrained.read_config(folder)

    loaded = pretrained.read_network(
        AutoModelForImageClassification, folder, config, trust_remote_code=False
    )

    names = {
        loaded.renamed.get(name, f"{loaded.prefix}{name}")
        for name in load_file(folder / "model.safetensors")
    }
    assert names | loaded.fresh == set(loaded.module.state_dict())
    assert len(loaded.renamed) == 32
    assert loaded.prefix == ("vit." if bare else "")


def test_a_child_has_the_names_of_the_network(tmp_path):
    module = AutoModelForImageClassification.from_pretrained(tiny_vit(tmp_path / "base")).eval()
    image = torch.randn(1, 3, 16, 16)

    pretrained.save(module, None, tmp_path / "child")
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "child").eval()

    assert set(load_file(tmp_path / "child" / "model.safetensors")) == set(module.state_dict())
    assert torch.allclose(plain(image).logits, module(image).logits, atol=1e-6)


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
