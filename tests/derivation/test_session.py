from __future__ import annotations

import pytest
import torch

from chains import other_labels
from reuselib.adapter import ModelRef
from reuselib.data import Splits
from reuselib.derivation.session import Encoded, Session
from reuselib.errors import DataError, IncompatibleStep
from reuselib.lineage.store import Store
from reuselib.model.opening import open_network
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_rows
from reuselib.training.plan import EarlyStopping, FitPlan

TASK = TextClassification(labels=("bad", "good"))


@pytest.fixture(scope="module")
def opened(chain):
    return open_network(chain.tuned.folder, TASK, Store(chain.store))


@pytest.fixture
def session(chain, opened):
    return Session(
        task=TASK,
        rows=chain.rows,
        encoded=Encoded(TASK, opened.processor),
        seed=0,
        store=Store(chain.store),
    )


class Counting:
    """A task that only counts what it encodes."""

    def __init__(self):
        self.encoded = []

    def encode(self, rows, processor):
        self.encoded.append(list(rows))
        return [row["n"] for row in rows]


class TestEncoded:
    def test_the_same_rows_are_encoded_once(self):
        task = Counting()
        encoded, rows = Encoded(task, None), [{"n": 1}, {"n": 2}]

        assert encoded.of(rows) is encoded.of(rows)
        assert task.encoded == [rows]

    def test_rows_that_are_gone_are_not_taken_for_new_ones(self):
        """Python gives the id of a list that is gone to the next one."""
        encoded = Encoded(Counting(), None)

        for number in range(50):
            assert list(encoded.of([{"n": number}])) == [number]


def test_without_rows_a_step_that_needs_some_is_told(session):
    from dataclasses import replace

    without = replace(session, rows=None)

    for use in (lambda: without.splits, without.example, lambda: without.evaluate(None)):
        with pytest.raises(DataError, match="no data") as caught:
            use()
        assert "data" in caught.value.fix
    assert without.reference() == {}


def test_metrics_and_logits_are_those_of_the_test_rows(session, opened, chain):
    found = session.evaluate(opened.module)

    assert found == pytest.approx(chain.execution.model().figures.after)
    assert session.logits(opened.module, 5).shape == (5, 2)
    assert session.logits(opened.module, 10**6).shape == (len(chain.rows.test), 2)
    assert session.logits(opened.module, 5).equal(
        chain.execution.model().logits(chain.rows.test[:5])
    )


def test_the_training_rows_can_be_measured_too_and_no_unknown_split(session, opened):
    assert session.evaluate(opened.module, "train") != session.evaluate(opened.module)
    with pytest.raises(DataError, match="no split 'validation'"):
        session.evaluate(opened.module, "validation")


def test_an_example_is_inputs_without_targets(session, opened):
    batch = session.example()

    assert "labels" not in batch
    assert len(batch["input_ids"]) == 2
    assert opened.module(**batch).logits.shape == (2, 2)


class TestBatches:
    def test_they_are_the_first_rows_with_targets_sorted_by_length(self, session, chain):
        batches = session.batches(20, batch_size=8)

        assert [len(batch["labels"]) for batch in batches] == [8, 8, 4]
        lengths = [batch["attention_mask"].sum(1) for batch in batches]
        assert torch.cat(lengths).equal(torch.cat(lengths).sort().values)
        wanted = session.encoded.of(chain.rows.train)[:20]
        assert torch.cat(lengths).tolist() == sorted(len(each["input_ids"]) for each in wanted)

    def test_more_rows_than_there_are_is_an_error(self, session):
        with pytest.raises(DataError, match=r"10000 rows of the train split .* has \d+"):
            session.batches(10000)


class TestFit:
    @pytest.fixture
    def network(self, chain):
        return open_network(chain.tuned.folder, TASK, Store(chain.store)).module

    def test_how_the_loop_ran_is_settled(self, session, network):
        metrics = session.fit(network, FitPlan(epochs=1, batch_size=16))

        assert metrics["num_steps"] == 2
        assert session.settled["device"]
        assert "precision" in session.settled

    def test_progress_is_reported(self, session, network):
        from dataclasses import replace

        seen = []

        replace(session, report=seen.append).fit(network, FitPlan(epochs=1, batch_size=16))

        assert seen
        assert seen[-1].done == seen[-1].total == 2

    def test_early_stopping_holds_out_training_rows_where_there_is_no_split(self, session, network):
        plan = FitPlan(epochs=1, batch_size=16, early_stopping=EarlyStopping())

        metrics = session.fit(network, plan)

        assert metrics["num_examples"] < len(session.splits.train)

    def test_early_stopping_uses_the_validation_split_that_is_there(self, session, network):
        from dataclasses import replace

        rows = Splits.of(session.splits.train, session.splits.test, tiny_rows(8, seed=9))
        plan = FitPlan(epochs=1, batch_size=16, early_stopping=EarlyStopping())

        metrics = replace(session, rows=rows).fit(network, plan)

        assert metrics["num_examples"] == len(rows.train)


class TestLoad:
    def test_another_model_comes_in_evaluation_mode(self, session, chain, opened):
        module = session.load(ModelRef(f"store:{chain.tuned.folder.name}"))

        assert not any(part.training for part in module.modules())
        state = opened.module.state_dict()
        assert all(value.equal(state[name]) for name, value in module.state_dict().items())

    def test_a_model_that_lacks_a_head_is_refused(self, session, chain):
        with pytest.raises(IncompatibleStep, match="no weights for classifier") as caught:
            session.load(ModelRef(str(chain.base)))
        assert "fine-tune it" in caught.value.fix

    def test_a_child_for_other_labels_is_refused_too(self, session, chain):
        from dataclasses import replace

        task = TextClassification().pin(other_labels())

        with pytest.raises(IncompatibleStep, match="no weights for classifier"):
            replace(session, task=task).load(ModelRef(f"store:{chain.tuned.folder.name}"))


def test_a_session_with_new_parameters_shares_everything_else(session):
    fresh = session.with_fresh(frozenset({"classifier.weight"}))

    assert fresh.fresh == {"classifier.weight"}
    assert fresh.encoded is session.encoded
    assert session.fresh == frozenset()
