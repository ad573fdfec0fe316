from __future__ import annotations

import json
import shutil

import pytest

from reuselib.errors import SourceError, UnsafeModel
from reuselib.tasks.safety import refuse_unsafe, weight_names
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert

TASK = TextClassification(labels=("bad", "good"))


def edit(path, **values) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture
def model(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "model")


def test_a_plain_model_is_safe(model):
    refuse_unsafe(model)


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_remote_code_is_refused_before_it_runs(model, tmp_path, file):
    witness = tmp_path / "it_ran"
    (model / "code.py").write_text(f"open({str(witness)!r}, 'w')\n")
    edit(model / file, auto_map={"AutoConfig": "code.Config", "AutoTokenizer": ["code.T", None]})

    with pytest.raises(UnsafeModel, match="auto_map") as caught:
        TASK.load(model)

    assert "trust_remote_code" in caught.value.fix
    assert not witness.exists()


def test_remote_code_may_be_asked_for(model):
    edit(model / "config.json", auto_map={"AutoConfig": "code.Config"})

    refuse_unsafe(model, trust_remote_code=True)


def test_a_kernel_from_elsewhere_is_refused(model):
    edit(model / "config.json", attn_implementation="someone/kernel")

    with pytest.raises(UnsafeModel, match="kernel"):
        TASK.load(model)


def test_a_pickle_is_refused_and_not_opened(model, tmp_path):
    witness = tmp_path / "it_ran"
    (model / "model.safetensors").unlink()
    code = f"cposix\nsystem\n(S'touch {witness}'\ntR."
    (model / "pytorch_model.bin").write_bytes(code.encode())

    with pytest.raises(UnsafeModel, match="pickle"):
        TASK.load(model)

    assert not witness.exists()


def test_a_pickle_beside_safetensors_is_not_read(model):
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04nonsense")

    assert TASK.load(model).fresh == {"classifier.weight", "classifier.bias"}


def test_an_adapter_alone_is_no_model(tmp_path):
    edit(tmp_path / "adapter_config.json", base_model_name_or_path="elsewhere")

    with pytest.raises(SourceError, match="peft adapter"):
        refuse_unsafe(tmp_path)


def test_an_adapter_config_does_not_lead_to_another_model(model):
    edit(model / "adapter_config.json", base_model_name_or_path="elsewhere", peft_type="LORA")

    with pytest.raises(SourceError, match="adapter beside the model"):
        TASK.load(model)


def test_a_folder_that_is_not_there_or_empty_is_named(tmp_path):
    with pytest.raises(SourceError, match="no folder 'nowhere'"):
        refuse_unsafe(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"no config\.json"):
        refuse_unsafe(tmp_path)


def test_a_broken_configuration_is_named(model):
    (model / "config.json").write_text("{")

    with pytest.raises(SourceError, match=r"config\.json' is not JSON"):
        TASK.load(model)


def test_weights_are_named_and_their_absence_is(model):
    assert "embeddings.word_embeddings.weight" in weight_names(model)

    (model / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="no weights"):
        TASK.load(model)


def test_cut_weights_are_named(model):
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(SourceError, match=r"model\.safetensors"):
        TASK.load(model)
