from __future__ import annotations

import pytest

from chains import SHORT, text_rows
from reuselib.adapter import ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.prune import Prune
from reuselib.cli.estimate import show
from reuselib.derivation.budget import estimate as estimate_budget
from reuselib.derivation.derive import Runtime, derive
from reuselib.derivation.plan import plan
from reuselib.derivation.rehearsal import estimate, rehearse
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert
from reuselib.training.plan import FitPlan


def test_the_first_step_is_not_taken_for_typical():
    assert estimate([10.0, 11.0, 13.0], num_steps=100, spent=20.0) == 150.0


@pytest.mark.parametrize("times", [[], [1.0]])
def test_what_cannot_be_timed_took_what_was_spent(times):
    assert estimate(times, num_steps=len(times), spent=2.5) == 2.5


@pytest.mark.parametrize(
    ("steps", "stock"),
    [
        ((Prune(ffn=0.5), Prune(heads=0.5), FineTune(fit=FitPlan(epochs=1))), [True, False, False]),
        ((Prune(ffn=0.5), Prune(blocks=(0,))), [True, True]),
    ],
)
def test_it_says_from_which_step_on_transformers_cannot_open_the_model(
    tmp_path, capsys, steps, stock
):
    made = plan(
        ModelRef(str(tiny_bert(tmp_path / "base", head=True, num_layers=3))),
        steps,
        task=TextClassification(),
        data=text_rows(),
        store=tmp_path / "store",
    )

    found = rehearse(made)

    assert [each.stock for each in found] == stock
    show(made, estimate_budget(made), found)
    assert ("from 'prune' on" in capsys.readouterr().out) is not all(stock)


@pytest.mark.parametrize("before", [(), (FineTune(fit=SHORT),)], ids=["at once", "after training"])
def test_a_base_that_was_pruned_in_an_earlier_run_can_be_healed(tmp_path, before):
    task, rows, store = TextClassification(), text_rows(), tmp_path / "store"
    base = ModelRef(str(tiny_bert(tmp_path / "base", head=True)))
    pruned = derive(base, Prune(ffn=0.5), task=task, data=rows, runtime=Runtime(store=store))

    made = plan(pruned, (*before, Distill(fit=SHORT)), task=task, data=rows, store=store)

    assert rehearse(made)[-1].kind == "distill"
