from __future__ import annotations

import pytest
import torch
from toys import Points, Tokens, network, points, tagger, token_rows

from reuselib.errors import IncompatibleStep
from reuselib.task import Task
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_llama, tiny_rows
from reuselib.training import batching
from reuselib.training.lessons import Lesson
from reuselib.training.teaching import Notes, Pupils, Taught, answers, joined, keys, lost_mass

TEXTS = tiny_rows(40)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    task = TextClassification(labels=("bad", "good"))
    loaded = task.load(tiny_bert(tmp_path_factory.mktemp("bert"), head=True, num_layers=3))
    return loaded.module, Pupils(task, loaded.processor, task.encode(TEXTS, loaded.processor))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    task = CausalLM(max_length=12)
    loaded = task.load(tiny_llama(tmp_path_factory.mktemp("llama")))
    return loaded.module, Pupils(task, loaded.processor, task.encode(TEXTS, loaded.processor))


def told(module, lesson, pupils, rows=None):
    return Notes(list(answers(module, lesson, pupils, rows or range(len(pupils.examples)))))


def alone(module, pupils, row, task: Task | None = None):
    """What the network says about a row by itself, so without padding."""
    task = task or pupils.task
    batch = task.collate([pupils.examples[row]], pupils.processor)
    with torch.inference_mode():
        output = module(**task.inputs(batch), output_hidden_states=True)
    return task.predictions(output.logits, batch), output.hidden_states


def test_logits_are_the_teachers_in_the_order_of_the_rows_asked_for(bert):
    module, pupils = bert

    found = told(module, Lesson(), pupils).of([7, 3, 38])

    wanted = torch.cat([alone(module, pupils, row)[0] for row in (7, 3, 38)])
    assert torch.allclose(found["logits"], wanted, atol=1e-6)
    assert found["targets"].tolist() == [1, 1, 1]


def test_hidden_states_come_without_padding(bert):
    module, pupils = bert

    found = told(module, Lesson(logits=False, hidden_states=(0, -1)), pupils).of([5, 9])

    for key, number in (("hidden.0", 1), ("hidden.-1", 3)):
        wanted = torch.cat([alone(module, pupils, row)[1][number][0] for row in (5, 9)])
        assert torch.allclose(found[key], wanted, atol=1e-6)
    assert "logits" not in found


def test_a_language_model_tells_about_each_token_that_is_predicted(llama):
    module, pupils = llama

    found = told(module, Lesson(), pupils).of([4, 1])

    parts = [alone(module, pupils, row)[0] for row in (4, 1)]
    assert torch.allclose(found["logits"], torch.cat(parts), atol=1e-6)
    assert found["targets"].tolist() == [len(part) for part in parts]


def test_the_top_is_kept_with_what_is_lost(llama):
    module, pupils = llama
    whole = told(module, Lesson(), pupils)

    top = told(module, Lesson(top_k=3, temperature=2.0), pupils)

    p = (whole.of([6])["logits"] / 2).softmax(-1)
    assert torch.allclose(top.of([6])["top"].exp(), p.topk(3).values, atol=1e-6)
    total, number = lost_mass(top.parts)
    rows = range(len(pupils.examples))
    wanted = 1 - (whole.of(rows)["logits"].double() / 2).softmax(-1).topk(3).values.sum(-1)
    assert total / number == pytest.approx(float(wanted.mean()), 1e-5)


def test_a_top_that_leaves_nothing_out_is_refused(bert):
    module, pupils = bert

    with pytest.raises(IncompatibleStep, match="top_k=2 leaves nothing out"):
        told(module, Lesson(top_k=2), pupils)


def test_outputs_beyond_the_tokenizers_tokens_are_not_told(llama):
    from transformers import LlamaForCausalLM

    module, pupils = llama
    wider = LlamaForCausalLM(module.config).eval()
    wider.load_state_dict(module.state_dict())
    wider.resize_token_embeddings(len(pupils.processor) + 5)

    found = told(wider, Lesson(), pupils).of([2])

    assert torch.allclose(
        found["logits"], told(module, Lesson(), pupils).of([2])["logits"], atol=1e-6
    )


def test_decisions_and_numbers_have_one_output_a_row(tmp_path):
    rows = [{"text": "good film", "label": ["a", "b"]}, {"text": "bad", "label": []}] * 3
    task = TextClassification(labels=("a", "b", "c"), problem="multi_label")
    loaded = task.load(tiny_bert(tmp_path, head=True, num_labels=3))
    pupils = Pupils(task, loaded.processor, task.encode(rows, loaded.processor))

    found = told(loaded.module, Lesson(), pupils).of([1, 4])

    assert found["logits"].shape == (2, 3)
    assert found["targets"].tolist() == [3, 3]


def test_a_network_from_python_teaches_too():
    rows = points(10)

    found = told(network(), Lesson(hidden_states=(0,)), Pupils(Points(), None, rows)).of([3])

    x = torch.from_numpy(rows[3]["x"])
    assert torch.allclose(found["logits"][0], network()(x), atol=1e-6)
    assert torch.allclose(found["hidden.0"][0], network()[0](x), atol=1e-6)


def test_rows_without_any_target_count_as_none():
    """A task of a stranger may have a target at some tokens only."""
    rows = token_rows(12)

    found = told(tagger(), Lesson(logits=False), Pupils(Tokens(), None, rows)).of([0, 5])

    assert found["targets"].tolist() == [int((rows[row]["labels"] != -100).sum()) for row in (0, 5)]


def test_only_the_rows_asked_for_are_computed(bert, monkeypatch):
    module, pupils = bert
    seen = []
    collate = TextClassification.collate
    monkeypatch.setattr(
        TextClassification, "collate", lambda self, e, p: seen.append(len(e)) or collate(self, e, p)
    )

    told(module, Lesson(), pupils, rows=[3, 8, 20])

    assert sum(seen) == 3


def test_batches_are_bounded_by_rows_and_by_what_they_cost(llama, monkeypatch):
    module, pupils = llama
    monkeypatch.setattr(batching, "MAX_ROWS", 5)
    monkeypatch.setattr(batching, "MAX_COST", 24)

    for part in answers(module, Lesson(), pupils, range(40)):
        longest = max(len(pupils.examples[row]["input_ids"]) for row in part["rows"].tolist())
        assert len(part["rows"]) <= min(5, 24 // longest)


def test_progress_is_reported(bert):
    module, pupils = bert
    seen = []

    list(
        answers(
            module,
            Lesson(),
            Pupils(pupils.task, pupils.processor, pupils.examples, seen.append),
            range(40),
        )
    )

    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == ("teaching", 40, 40)


def test_joined_parts_say_the_same(llama):
    module, pupils = llama
    lesson = Lesson(hidden_states=(-1,))
    parts = list(answers(module, lesson, pupils, range(40)))

    fewer = list(joined(parts, 1 << 30))

    assert len(fewer) == 1
    one, other = Notes(parts).of([39, 0, 17]), Notes(fewer).of([39, 0, 17])
    assert one.keys() == other.keys()
    assert all(one[key].equal(other[key]) for key in one)
    assert len(list(joined(parts, 1))) == len(parts)


def test_several_teachers_stand_side_by_side(bert):
    module, pupils = bert
    notes = told(module, Lesson(), pupils)

    taught = Taught([notes, notes], {})

    assert set(taught([0, 1])) == {
        f"teacher.{number}.{key}" for number in (0, 1) for key in ("logits", "targets")
    }
    assert taught.widths == {"teacher.0.logits": 2, "teacher.1.logits": 2}


def test_the_network_comes_back_as_it_was(bert):
    module, pupils = bert
    before = {name: value.clone() for name, value in module.state_dict().items()}

    part = next(answers(module, Lesson(), pupils, range(4)))

    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert not any(part[key].requires_grad or part[key].is_inference() for key in keys(part))
