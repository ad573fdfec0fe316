"""Teachers asked about training rows: when they are opened, and what is kept."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace

import pytest

from chains import run
from reuselib.adapter import ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.derivation.rehearsal import rehearse
from reuselib.derivation.session import Encoded, Session
from reuselib.derivation.teacher import Teacher
from reuselib.errors import IncompatibleStep, IntegrityError, SourceError
from reuselib.lineage.store import Store
from reuselib.model.opening import open_network
from reuselib.testing.tiny import tiny_bert
from reuselib.training.lessons import Lesson
from reuselib.training.plan import EarlyStopping, FitPlan

SHORT = FitPlan(epochs=1, batch_size=8, learning_rate=1e-3)


@pytest.fixture
def session(chain, tmp_path):
    store = Store(tmp_path / "store")
    task = chain.execution.plan.task
    opened = open_network(chain.tuned.folder, task, Store(chain.store))
    return Session(
        task=task, rows=chain.rows, encoded=Encoded(task, opened.processor), seed=0, store=store
    )


def teacher(chain, session, opened, identity=("origin",)):
    def open_it():
        opened.append(1)
        return open_network(chain.tuned.folder, session.task, Store(chain.store))

    return Teacher(identity, open_it)


def lessons(session):
    return sorted((session.store.path / "lessons").glob("*"))


def test_a_teacher_is_opened_once_for_all_runs(chain, session):
    opened = []
    session = replace(session, origin_teacher=teacher(chain, session, opened))

    first = session.teach((), Lesson(), SHORT)
    again = session.teach((), Lesson(), replace(SHORT, epochs=7, batch_size=4))

    assert opened == [1]
    rows = range(len(chain.rows.train))
    assert first(rows)["teacher.0.logits"].equal(again(rows)["teacher.0.logits"])
    assert len(lessons(session)) == 1


def test_a_teacher_is_gone_from_memory_afterwards(chain, session):
    alive = []

    def opened():
        found = open_network(chain.tuned.folder, session.task, Store(chain.store))
        alive.append(weakref.ref(found.module))
        return found

    for identity in (("origin",), ()):
        taught = replace(session, origin_teacher=Teacher(identity, opened)).teach(
            (), Lesson(), SHORT
        )
        gc.collect()
        assert alive.pop()() is None
        assert len(taught([0, 1])["teacher.0.logits"]) == 2


def test_another_teacher_other_rows_or_another_lesson_is_asked_anew(chain, session):
    opened = []
    first = replace(session, origin_teacher=teacher(chain, session, opened))
    other = replace(session, origin_teacher=teacher(chain, session, opened, ("other",)))

    first.teach((), Lesson(), SHORT)
    other.teach((), Lesson(), SHORT)
    first.teach((), Lesson(hidden_states=(-1,)), SHORT)
    held_out = first.teach((), Lesson(), replace(SHORT, early_stopping=EarlyStopping()))

    assert len(opened) == len(lessons(session)) == 4
    kept = len(chain.rows.with_validation().train)
    assert len(held_out.notes[0].where) == kept < len(chain.rows.train)


def test_the_same_rows_cut_into_other_tokens_are_told_anew(chain, session):
    opened = []
    shorter = replace(session.task, max_length=4)
    for task in (session.task, shorter):
        changed = replace(session, task=task, encoded=Encoded(task, session.encoded.processor))
        replace(changed, origin_teacher=teacher(chain, session, opened)).teach((), Lesson(), SHORT)

    assert len(opened) == len(lessons(session)) == 2


def test_a_teacher_without_identity_is_asked_about_the_first_steps_only_and_not_kept(
    chain, session
):
    session = replace(session, origin_teacher=teacher(chain, session, [], ()))

    taught = session.teach((), Lesson(), replace(SHORT, max_steps=2))

    assert len(taught.notes[0].where) == 16
    assert lessons(session) == []


def test_in_a_rehearsal_nothing_is_kept(chain, session):
    named = (ModelRef(str(chain.tuned.folder)),)

    taught = replace(session, rehearsing=True).teach(named, Lesson(), replace(SHORT, max_steps=1))

    assert len(taught.notes[0].where) == 8
    assert lessons(session) == []


def test_the_generator_is_where_it_was(chain, session):
    import torch

    session = replace(session, origin_teacher=teacher(chain, session, []))
    torch.manual_seed(5)
    before = torch.get_rng_state()

    session.teach((), Lesson(), SHORT)

    assert torch.get_rng_state().equal(before)


def test_asking_the_origin_needs_to_be_announced(session):
    with pytest.raises(IncompatibleStep, match="without saying that it uses it"):
        session.teach((), Lesson(), SHORT)


def test_the_chain_heals_against_what_it_had_before_compression(chain, tmp_path):
    """Not against its parent: the record and the kept lesson name the same teacher."""
    steps = [FineTune(fit=SHORT), Distill(blocks=(0,), fit=SHORT), Distill(fit=SHORT)]

    children = run(steps, chain.base, tmp_path / "store", data=chain.rows).children

    tuned = children[0].manifest.digests.dir_hash
    for child in children[1:]:
        parent = child.manifest.parents[-1]
        assert (parent.role, parent.digests.dir_hash) == ("teacher", tuned)
    # both steps learned from one and the same lesson
    (lesson,) = (tmp_path / "store" / "lessons").glob("*")
    told = json.loads((lesson / "lesson.json").read_text())["subject"]["teacher"]
    assert told == [tuned]


def test_a_rehearsal_of_the_chain_leaves_no_lesson(chain, tmp_path):
    steps = [FineTune(fit=SHORT), Distill(blocks=(0,), fit=SHORT), Distill(fit=SHORT)]
    plan = chain.plan(steps, store=tmp_path / "store")

    found = rehearse(plan)

    assert [each.kind for each in found] == ["finetune", "distill", "distill"]
    assert all(each.num_steps == 4 for each in found)
    assert not (tmp_path / "store" / "lessons").exists()


def test_a_teacher_with_an_adapter_teaches(chain, session):
    store = Store(chain.store)
    named = (ModelRef(f"store:{chain.lora.folder.name}"),)

    taught = replace(session, store=store).teach(named, Lesson(hidden_states=(-1,)), SHORT)

    assert taught.widths == {"teacher.0.logits": 2, "teacher.0.hidden.-1": 32}


def test_a_student_must_have_plain_weights(chain, session):
    with pytest.raises(IncompatibleStep, match="of form 'adapter'") as caught:
        replace(session, store=Store(chain.store)).load(ModelRef(f"store:{chain.lora.folder.name}"))
    assert "merge it first" in caught.value.fix


def test_a_teacher_that_is_not_there_is_told(session):
    with pytest.raises(SourceError, match="nowhere"):
        session.teach((ModelRef("./nowhere"),), Lesson(), SHORT)


def test_a_teacher_of_another_digest_is_told(session, tmp_path):
    ref = ModelRef(str(tiny_bert(tmp_path / "teacher", head=True)), digest="0" * 64)

    with pytest.raises((IntegrityError, SourceError)):
        session.teach((ref,), Lesson(), SHORT)
