from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reuselib.measure.latency import Protocol, Timing
from reuselib.measure.probe import Probe, times
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_llama, tiny_rows

ROWS = tiny_rows(40)


def probe(task, folder, rows=ROWS, **other) -> tuple[Probe, torch.nn.Module]:
    loaded = task.load(folder)
    made = Probe(
        task=task,
        processor=loaded.processor,
        rows=rows,
        columns=tuple(rows[0]),
        examples=task.encode(rows, loaded.processor),
        **other,
    )
    return made, loaded.module


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    task = TextClassification(labels=("bad", "good"))
    return probe(task, tiny_bert(tmp_path_factory.mktemp("bert"), head=True))


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return probe(CausalLM(), tiny_llama(tmp_path_factory.mktemp("llama")))


def test_everything_is_measured_at_once(text, tmp_path):
    made, module = text
    (tmp_path / "model.safetensors").write_bytes(b"x" * 10)

    found = made.measure(module, tmp_path)

    assert set(found.metrics) == {"accuracy", "f1", "loss"}
    assert set(found.quality) == {"ece", "worst_class", "worst_slice"}
    assert found.cost["num_bytes"] == 10
    assert found.cost["num_parameters"] == sum(each.numel() for each in module.parameters())
    assert found.cost["flops"] > 0
    assert found.row_scores.mean() == pytest.approx(found.metrics["accuracy"])
    assert found.losses.mean() == pytest.approx(found.metrics["loss"])
    assert len(found.draws["accuracy"]) == 1000


def test_measuring_changes_nothing(text, tmp_path):
    made, module = text
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()

    made.measure(module, tmp_path)
    made.time(module)

    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert module.training
    module.eval()


def test_timed_batches_are_rows_of_middling_length(text):
    made, _ = text
    lengths = sorted(made.task.length(each) for each in made.examples)

    one, many = made.batches

    assert one["input_ids"].shape == (1, lengths[(len(lengths) - 1) // 2])
    assert len(many["input_ids"]) == 32
    assert many["attention_mask"].float().mean() > 0.5


def test_few_or_long_rows_make_smaller_batches(text, monkeypatch):
    from reuselib.measure import probe as room

    made, _ = text
    few = replace(made, examples=made.examples[:5], rows=ROWS[:5])
    assert [len(each["input_ids"]) for each in few.batches] == [1, 5]
    monkeypatch.setattr(room, "_MAX_LENGTH", 60)
    assert 1 < len(replace(made).batches[1]["input_ids"]) < 10


def test_the_protocol_says_how_times_were_taken(text):
    made, module = text
    protocol = Protocol(batch_sizes=(1, 4), rounds=3, seconds=0.01)
    made = replace(made, protocol=protocol)

    [found], told = made.time(module), made.describe()

    assert set(found) == {1, 4}
    assert all(len(each.rounds) == 3 for each in found.values())
    assert (told["batch_sizes"], told["rounds"]) == ([1, 4], 3)
    assert told["inputs"]["4"]["input_ids"][0] == 4
    assert told["threads"] >= 1


def test_times_have_the_names_of_gates():
    steady = Timing(((1.0, 3.0), (1.0, 3.0)), 0.2)
    shaken = Timing(((1.0,), (9.0,)), 0.2)

    assert times({1: steady, 32: shaken}) == {
        "latency_p50": 2.0,
        "latency_p95": 3.0,
        "latency_p50_batch32": "unstable",
        "latency_p95_batch32": "unstable",
    }


class TestLanguageModel:
    """Each position has an answer, so answers are kept of some rows only."""

    def test_answers_are_those_of_the_first_positions(self, language, tmp_path, monkeypatch):
        from reuselib.measure import probe as room

        made, module = language
        num_classes = module.config.vocab_size
        lengths = [made.task.length(each) for each in made.examples]
        monkeypatch.setattr(room, "_MAX_OUTPUTS", num_classes * sum(lengths[:3]))

        found = made.measure(module, tmp_path)

        assert found.by_position
        assert found.beliefs.log_probabilities.shape == (sum(lengths[:3]), 1, num_classes)
        ids = torch.tensor(made.examples[0]["input_ids"])[None].long()
        with torch.inference_mode():
            plain = module(input_ids=ids).logits[0].log_softmax(-1)
        mine = found.beliefs.log_probabilities[: len(plain), 0]
        assert torch.allclose(mine, plain, atol=1e-5)

    def test_rows_are_scored_by_their_loss(self, language, tmp_path):
        made, module = language

        found = made.measure(module, tmp_path)

        assert not found.more_is_better
        assert set(found.quality) == {"worst_slice"}
        assert found.quality["worst_slice"] >= found.metrics["loss"]
