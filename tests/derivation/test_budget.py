"""What a run is estimated to take, against counts by hand and against what files then hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from chains import SHORT, text_rows
from reuselib.adapter import ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.calibration.plan import Calibration
from reuselib.data import Splits
from reuselib.derivation import budget
from reuselib.derivation.budget import estimate
from reuselib.derivation.derive import Runtime, derive
from reuselib.derivation.plan import plan
from reuselib.errors import DoesNotFit, SourceError
from reuselib.measure import footprint
from reuselib.measure.cost import count_parameters
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_llama
from reuselib.training.plan import FitPlan

STEPS = {
    "finetune": (FineTune(fit=SHORT),),
    "head": (FineTune(train=("head",), fit=SHORT),),
    "lora, merge": (LoRA(r=2, fit=SHORT), Merge()),
    "prune, distill": (FineTune(fit=SHORT), Prune(ffn=0.5, heads=0.5), Distill(fit=SHORT)),
    "qat": (FineTune(fit=SHORT), Quantize(fit=SHORT)),
    "rtn": (FineTune(fit=SHORT), Quantize(scheme="int4-weight", group_size=8, embeddings="int8")),
    "gptq": (FineTune(fit=SHORT), Quantize(method="gptq", calibration=Calibration(num_rows=8))),
    "half": (FineTune(fit=SHORT), Quantize(scheme="bf16")),
    "sparse": (FineTune(fit=SHORT), Sparsify(sparsity=0.5), FineTune(fit=SHORT)),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("budget") / "bert")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store for all, in which a step that several recipes begin with is taken once."""
    return tmp_path_factory.mktemp("made")


@pytest.mark.parametrize("name", STEPS)
def test_sizes_on_disk_and_parameters_are_those_of_the_children(tmp_path, bert, made, name):
    steps, task, rows = STEPS[name], TextClassification(), text_rows()
    planned = plan(ModelRef(str(bert)), steps, task=task, data=rows, store=tmp_path)

    found = estimate(planned)

    assert not any(each.unknown for each in found.steps)
    model = derive(str(bert), steps, task=task, data=rows, runtime=Runtime(store=made))
    last = found.steps[-1]
    assert last.num_parameters == count_parameters(model.module)
    folder = model.folder
    weights = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
    beside = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) - weights
    told = last.child_bytes
    assert abs(told - weights - beside) < 0.15 * weights + 0.5 * beside


def test_a_closed_formula_gives_the_same_for_a_training(tmp_path, bert):
    steps = (FineTune(fit=FitPlan(batch_size=2)),)
    made = plan(
        ModelRef(str(bert)), steps, task=TextClassification(), data=text_rows(), store=tmp_path
    )

    parts = estimate(made).steps[0].parts

    number = estimate(made).steps[0].num_parameters
    assert parts["gradients"] == pytest.approx(4 * number, rel=0.01)
    assert parts["moments"] == 2 * parts["gradients"]
    assert parts["weights"] >= 4 * number


def big_llama(folder: Path) -> Path:
    """Configuration and index of a model of 8 billion parameters, with no weights; a small tokenizer."""
    tiny_llama(folder)
    (folder / "model.safetensors").unlink()
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        from transformers import LlamaForCausalLM

        names = list(LlamaForCausalLM(config).state_dict())
    index = {
        "metadata": {"total_size": 2 * 8_030_261_248},
        "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_model_of_8_billion_parameters_is_estimated_without_its_weights(tmp_path, monkeypatch):
    base = ModelRef(str(big_llama(tmp_path / "llama")))
    texts = [{"text": f"{'the small cat sees a big dog ' * 8} {at}"} for at in range(8)]
    rows = Splits.of(texts[:6], texts[6:])
    walked = gone_through(monkeypatch)

    def asked(adapter, num_processes):
        made = plan(
            base,
            adapter,
            task=CausalLM(max_length=64),
            data=rows,
            store=tmp_path / "s",
            weights=False,
        )
        return estimate(made, num_processes=num_processes)

    full = asked(FineTune(fit=FitPlan(batch_size=8)), 8)
    number = 8_030_261_248
    step = full.steps[0]
    assert step.num_parameters == number
    assert step.parts["weights"] == pytest.approx(4 * number, rel=0.01)
    assert step.parts["gradients"] + step.parts["moments"] == pytest.approx(12 * number, rel=0.01)
    # a share of 16 bytes a parameter, a few blocks of 0.87 GB, and what lies outside of these
    assert 16 * number / 8 < step.sharded_bytes < 16 * number / 8 + 12e9
    assert full.objections
    with pytest.raises(DoesNotFit, match="memory does not fit"):
        full.require()

    low = asked(LoRA(r=8, fit=FitPlan(batch_size=8)), 1).steps[0]
    assert low.parts["weights"] == pytest.approx(4 * number, rel=0.02)
    assert low.parts["gradients"] < 0.01 * low.parts["weights"]
    assert low.child_bytes < 0.01 * 4 * number
    # of the 32 blocks, which are alike, never more than three
    assert walked
    assert max(walked) == 3


def gone_through(monkeypatch) -> list[int]:
    """How many blocks of Llama's each network had that was gone through."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    found: list[int] = []
    original = footprint.weightless

    def counted(module, *arguments):
        found.append(sum(isinstance(each, LlamaDecoderLayer) for each in module.modules()))
        return original(module, *arguments)

    monkeypatch.setattr(footprint, "weightless", counted)
    return found


@pytest.mark.parametrize(
    "index", ['{"weight_map": [1,', '{"weight_map": 7}', '{"metadata": []}', "[]"]
)
def test_an_index_that_is_none_is_said_to_be_none(tmp_path, index):
    tiny_bert(tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").unlink()
    (tmp_path / "bert" / "model.safetensors.index.json").write_text(index)
    made = plan(
        ModelRef(str(tmp_path / "bert")), FineTune(fit=SHORT), task=TextClassification(),
        data=text_rows(), store=tmp_path / "s", weights=False,
    )  # fmt: skip

    with pytest.raises(SourceError, match="is not an index of weights"):
        estimate(made)


def test_a_folder_without_weights_is_no_model(tmp_path):
    tiny_bert(tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").unlink()

    with pytest.raises(SourceError, match="holds neither weights nor an index of them"):
        plan(
            ModelRef(str(tmp_path / "bert")), FineTune(fit=SHORT), task=TextClassification(),
            data=text_rows(), store=tmp_path / "s", weights=False,
        )  # fmt: skip


def test_what_does_not_fit_is_said_with_what_it_needs(tmp_path, bert, monkeypatch):
    made = plan(
        ModelRef(str(bert)), FineTune(fit=SHORT), task=TextClassification(), data=text_rows(),
        store=tmp_path,
    )  # fmt: skip
    assert not estimate(made).objections

    monkeypatch.setattr(budget, "_free_disk", lambda path: 1000)

    with pytest.raises(DoesNotFit, match=r"needs .* has 1 kB"):
        estimate(made).require()
