from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaModel

from reuselib.data import Splits
from reuselib.errors import DataError, SourceError
from reuselib.tasks.causal_lm import CausalLM
from reuselib.testing.tiny import tiny_llama, tiny_rows

TASK = CausalLM()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("base") / "llama")


def batch_of(task, loaded, rows):
    return task.collate(task.encode(rows, loaded.processor), loaded.processor)


def forward(task, loaded, batch) -> torch.Tensor:
    with torch.inference_mode():
        return task.forward(loaded.module, batch)


def test_pinning_checks_the_text():
    rows = [{"text": "a"}, {"text": None}]

    with pytest.raises(DataError, match="row 1 of 'train' has None"):
        TASK.pin(Splits.of(rows, rows))
    with pytest.raises(DataError, match="no column 'txt'"):
        CausalLM(text="txt").pin(Splits.of(rows, rows))


def test_texts_end_with_the_end_token_unless_they_are_cut(llama):
    loaded = TASK.load(llama)
    rows = [{"text": "the film was good"}]
    end = loaded.processor.eos_token_id

    whole = TASK.encode(rows, loaded.processor)[0]["input_ids"].tolist()
    cut = CausalLM(max_length=3).encode(rows, loaded.processor)[0]["input_ids"].tolist()

    ids = loaded.processor("the film was good")["input_ids"]
    assert whole == [*ids, end]
    assert cut == ids[:3]


def test_padding_is_on_the_right_and_neither_seen_nor_predicted(llama):
    loaded = TASK.load(llama)
    loaded.processor.padding_side = "left"
    rows = tiny_rows(6)

    batch = batch_of(TASK, loaded, rows)
    together = TASK.observe(forward(TASK, loaded, batch), batch)

    lengths = batch["attention_mask"].sum(1)
    assert batch["attention_mask"][:, 0].all()
    assert TASK.num_targets(batch) == int((lengths - 1).sum())
    assert together["tokens"].tolist() == (lengths - 1).tolist()
    for index, row in enumerate(rows):
        single = batch_of(TASK, loaded, [row])
        alone = TASK.observe(forward(TASK, loaded, single), single)["loss"]
        assert together["loss"][index].item() == pytest.approx(alone.item(), rel=1e-5)


def test_the_loss_is_that_of_transformers_summed(llama):
    loaded = TASK.load(llama)
    batch = batch_of(TASK, loaded, tiny_rows(6))
    logits = forward(TASK, loaded, batch)

    expected = loaded.module(**batch).loss.item()

    loss = TASK.loss(logits, batch)
    assert loss.dtype == torch.float32
    assert loss.item() / TASK.num_targets(batch) == pytest.approx(expected, rel=1e-6)
    found = TASK.metrics(TASK.observe(logits, batch))
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_a_perplexity_is_always_a_finite_number():
    found = TASK.metrics({"loss": torch.tensor([1e6]), "tokens": torch.tensor([1])})

    assert math.isfinite(found["perplexity"])


def test_texts_without_a_token_to_predict_are_counted(llama):
    loaded = TASK.load(llama)

    with pytest.raises(DataError, match=r"2 of 3 rows.*row 1"):
        TASK.encode([{"text": "the film"}, {"text": ""}, {"text": " "}], loaded.processor)
    with pytest.raises(DataError, match="max_length is 1"):
        CausalLM(max_length=1)
    with pytest.raises(SourceError, match="at most 256"):
        CausalLM(max_length=300).load(llama)


@pytest.mark.parametrize("tied", [True, False])
def test_a_child_opens_in_plain_transformers_and_again_here(tmp_path, tied):
    loaded = TASK.load(tiny_llama(tmp_path / "base", tied=tied))
    batch = batch_of(TASK, loaded, tiny_rows(6))
    before = forward(TASK, loaded, batch)

    TASK.save(loaded.module, loaded.processor, tmp_path / "child")
    again = TASK.load(tmp_path / "child")
    TASK.save(again.module, again.processor, tmp_path / "grandchild")

    assert loaded.fresh == again.fresh == set()
    assert TASK.head(loaded.module) == ("lm_head",)
    assert torch.equal(forward(TASK, again, batch), before)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "child").eval()
    AutoTokenizer.from_pretrained(tmp_path / "child")
    with torch.inference_mode():
        logits = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.equal(logits, before)
    files = sorted(path.name for path in (tmp_path / "child").iterdir())
    for name in files:
        bytes_a = (tmp_path / "child" / name).read_bytes()
        assert bytes_a == (tmp_path / "grandchild" / name).read_bytes(), name
        assert str(tmp_path).encode() not in bytes_a


def test_a_body_without_a_head_gets_one_that_is_fresh(tmp_path):
    folder = tiny_llama(tmp_path / "base", tied=False)
    LlamaModel.from_pretrained(folder).save_pretrained(tmp_path / "body")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "body")

    loaded = TASK.load(tmp_path / "body")

    assert loaded.fresh == {"lm_head.weight"}
    assert loaded.prefix == "model."


def test_a_skeleton_takes_the_weights_of_the_child(llama):
    loaded = TASK.load(llama)

    skeleton = TASK.skeleton(llama)
    skeleton.load_state_dict(loaded.module.state_dict())

    batch = batch_of(TASK, loaded, tiny_rows(4))
    with torch.inference_mode():
        assert torch.equal(TASK.forward(skeleton, batch), forward(TASK, loaded, batch))
    assert TASK.processor(llama)("good")["input_ids"] == loaded.processor("good")["input_ids"]
