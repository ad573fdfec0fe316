from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from reuselib.errors import IncompatibleStep
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_llama, tiny_rows
from reuselib.training import objectives
from reuselib.training.lessons import Lesson, Losses
from reuselib.training.pupil import Course, Pupil
from reuselib.training.teaching import Notes, Pupils, Taught, answers

TEXTS = tiny_rows(12)
ALL = Losses(logits=0.7, task=0.3, hidden=0.5, relations=0.2)
LESSON = Lesson(hidden_states=(-1,), relations=(-1,))


class Class:
    """A student, its teachers, and the rows."""

    def __init__(self, folder, make, task, student=None, num_teachers=1):
        loaded = [task.load(make(folder / str(n), seed=n)) for n in range(1 + num_teachers)]
        self.student = (student or loaded[0]).module
        self.task, self.processor = task, loaded[0].processor
        self.examples = task.encode(TEXTS, self.processor)
        pupils = Pupils(task, self.processor, self.examples)
        self.teachers = [each.module for each in loaded[1:]]
        self.pupils = pupils

    def taught(self, lesson=LESSON):
        told = [list(answers(t, lesson, self.pupils, range(len(TEXTS)))) for t in self.teachers]
        return Taught([Notes(each) for each in told], {})

    def batch(self, rows):
        return self.task.collate([self.examples[row] for row in rows], self.processor)

    def pupil(self, losses, taught, pairs=((-1, -1),), temperature=2.0):
        course = Course(task=self.task, losses=losses, temperature=temperature, pairs=pairs)
        example = self.task.inputs(self.batch([0, 1]))
        return Pupil(self.student, course, example, taught.widths)

    def loss(self, losses, rows, lesson=LESSON, **options):
        taught = self.taught(lesson)
        pupil = self.pupil(losses, taught, **options)
        with pupil.watching():
            return pupil({**self.batch(rows), **taught(rows)})


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    task = TextClassification(labels=("bad", "good"))
    make = lambda folder, seed: tiny_bert(folder, head=True, num_layers=3, seed=seed)  # noqa: E731
    return Class(tmp_path_factory.mktemp("bert"), make, task, num_teachers=2)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    make = lambda folder, seed: tiny_llama(folder, seed=seed)  # noqa: E731
    return Class(tmp_path_factory.mktemp("llama"), make, CausalLM(max_length=12))


def test_the_loss_is_the_weighted_sum_of_its_parts(bert):
    rows = [0, 3, 7]
    batch = bert.batch(rows)
    outputs = [
        m(**bert.task.inputs(batch), output_hidden_states=True)
        for m in (bert.student, *bert.teachers)
    ]
    mask = batch["attention_mask"]

    total = 0.3 * functional.cross_entropy(outputs[0].logits, batch["labels"], reduction="sum")
    for told in outputs[1:]:
        total += 0.7 / 2 * objectives.categories_loss(outputs[0].logits, told.logits, 2.0)
        distance = (outputs[0].hidden_states[-1] - told.hidden_states[-1]).square().mean(-1)
        total += 0.5 / 2 * (distance * mask / mask.sum(1, keepdim=True)).sum()
    for teacher, told in zip(bert.teachers, outputs[1:], strict=True):
        for name in ("query", "key", "value"):
            own, theirs = (
                getattr(m.bert.encoder.layer[2].attention.self, name)(o.hidden_states[2])
                for m, o in ((bert.student, outputs[0]), (teacher, told))
            )
            total += 0.2 / 2 / 3 * objectives.relation_losses(own, theirs, mask, 16).sum()

    assert bert.loss(ALL, rows).item() == pytest.approx(total.item(), 1e-5)


def test_learning_from_several_is_learning_from_their_mean_probabilities(bert):
    batch = bert.batch(range(6))
    with torch.inference_mode():
        told = [m(**bert.task.inputs(batch)).logits.softmax(-1) for m in bert.teachers]
    own = bert.student(**bert.task.inputs(batch)).logits
    mean = objectives.categories_loss(own, (sum(told) / 2).log(), 1.0)
    wanted = torch.autograd.grad(mean, bert.student.classifier.weight)[0]

    loss = bert.loss(Losses(), range(6), Lesson(), temperature=1.0)

    found = torch.autograd.grad(loss, bert.student.classifier.weight)[0]
    assert torch.allclose(found, wanted, atol=1e-6)


def test_the_loss_of_a_batch_is_the_sum_of_its_rows(bert, llama):
    """So that it may be cut into micro-batches and spread over processes."""
    for room in (bert, llama):
        whole = room.loss(ALL, [1, 4, 9]).item()

        assert sum(room.loss(ALL, [row]).item() for row in (1, 4, 9)) == pytest.approx(whole, 1e-5)


def test_a_language_model_learns_where_a_token_is_predicted(llama):
    batch = llama.batch([2, 5])
    own, told = (m(**llama.task.inputs(batch)).logits for m in (llama.student, *llama.teachers))
    chosen = batch["attention_mask"][:, 1:].bool()

    wanted = objectives.categories_loss(own[:, :-1][chosen], told[:, :-1][chosen], 2.0)

    assert llama.loss(Losses(), [2, 5], Lesson()).item() == pytest.approx(wanted.item(), 1e-5)


def test_the_top_of_a_language_model_is_below_its_whole(llama):
    whole = llama.loss(Losses(), [2, 5], Lesson()).item()
    top = llama.loss(Losses(), [2, 5], Lesson(top_k=12, temperature=2.0)).item()

    assert 0.5 * whole < top < whole


def test_a_student_with_more_outputs_than_tokens_ignores_the_others(llama, tmp_path):
    from transformers import LlamaForCausalLM

    wider = LlamaForCausalLM(llama.student.config).eval()
    wider.load_state_dict(llama.student.state_dict())
    wider.resize_token_embeddings(len(llama.processor) + 7)
    taught = llama.taught(Lesson())
    course = Course(task=llama.task, losses=Losses(), temperature=2.0, pairs=())

    with Pupil(wider, course, {}, taught.widths).watching() as _:
        pass
    found = Pupil(wider, course, {}, taught.widths)({**llama.batch([3]), **taught([3])})

    assert found.item() == pytest.approx(llama.loss(Losses(), [3], Lesson()).item(), 1e-5)


def test_a_student_with_fewer_outputs_than_tokens_is_refused(llama):
    taught = llama.taught(Lesson())
    told = taught([3])
    told["teacher.0.logits"] = functional.pad(told["teacher.0.logits"], (0, 4))

    with pytest.raises(
        IncompatibleStep, match=r"has 23 outputs, but the teacher's tokenizer has 27"
    ):
        llama.pupil(Losses(), taught)({**llama.batch([3]), **told})


class TestProjections:
    @pytest.fixture
    def narrow(self, bert, tmp_path):
        """A student of half the teachers' width."""
        from transformers import BertConfig, BertForSequenceClassification

        config = bert.student.config.to_dict() | {
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
        }
        torch.manual_seed(3)
        room = object.__new__(Class)
        room.__dict__.update(bert.__dict__)
        room.student = BertForSequenceClassification(BertConfig(**config)).eval()
        return room

    def test_one_for_each_pair_and_teacher_where_widths_differ(self, narrow):
        lesson = Lesson(hidden_states=(0, 2))
        pupil = narrow.pupil(Losses(hidden=1.0), narrow.taught(lesson), pairs=((0, 0), (1, 2)))

        shapes = {name: tuple(p.weight.shape) for name, p in pupil.projections.items()}
        assert shapes == {f"{n}_{a}_{b}": (32, 16) for n in (0, 1) for a, b in ((0, 0), (1, 2))}

    def test_none_where_they_agree(self, bert):
        assert len(bert.pupil(ALL, bert.taught()).projections) == 0

    def test_they_learn_and_so_does_the_student(self, narrow):
        taught = narrow.taught()
        pupil = narrow.pupil(Losses(logits=0.0, hidden=1.0), taught)
        with pupil.watching():
            pupil({**narrow.batch([0, 1]), **taught([0, 1])}).backward()

        for name, parameter in pupil.named_parameters():
            # every parameter takes part, or processes would wait for its gradient
            unused = "classifier" in name or "pooler" in name or name.endswith("key.bias")
            assert parameter.grad is not None
            assert unused or parameter.grad.abs().max() > 0, name

    def test_relations_need_none(self, narrow):
        assert narrow.loss(Losses(logits=0.0, relations=1.0), [0, 1]).item() > 0


def test_called_like_the_network_it_is_the_network(bert):
    inputs = bert.task.inputs(bert.batch([0, 1]))
    pupil = bert.pupil(ALL, bert.taught())

    assert bert.task.forward(pupil, bert.batch([0, 1])).equal(bert.student(**inputs).logits)


def test_a_student_that_is_its_teacher_has_nothing_to_lose(bert):
    room = object.__new__(Class)
    room.__dict__.update(bert.__dict__)
    room.student, room.teachers = bert.teachers[0], bert.teachers[:1]

    inner = Losses(logits=0.0, hidden=1.0, relations=1.0)
    lesson = Lesson(logits=False, hidden_states=(-1,), relations=(-1,))
    assert room.loss(inner, [0, 1, 2], lesson).item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(IncompatibleStep, match="nothing to learn"):
        room.loss(Losses(), [0, 1, 2])


def test_blocks_that_see_other_positions_are_refused(bert):
    taught = bert.taught()
    told = taught([0, 1])
    told["teacher.0.hidden.-1"] = told["teacher.0.hidden.-1"][1:]
    pupil = bert.pupil(ALL, taught)

    with pupil.watching(), pytest.raises(IncompatibleStep, match="vectors for these rows"):
        pupil({**bert.batch([0, 1]), **told})
