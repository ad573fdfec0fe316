from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from chains import LORA, SHORT
from reuselib.adapter import Adapted, Adapter, Finding
from reuselib.adapters.finetune import FineTune
from reuselib.derivation.session import Encoded, Session
from reuselib.derivation.step import perform
from reuselib.errors import LawBroken
from reuselib.lineage.store import Store
from reuselib.model.opening import open_network
from reuselib.tasks.text_classification import TextClassification

TASK = TextClassification(labels=("bad", "good"))


@dataclass(frozen=True, kw_only=True)
class Noise(Adapter):
    """Adds what torch's global generator draws."""

    kind: ClassVar[str] = "noise"

    def adapt(self, module, run):
        with torch.no_grad():
            for value in module.parameters():
                value.add_(torch.randn_like(value), alpha=0.01)
        return Adapted(module.train(), metrics={"drawn": 1.0})

    def prove(self, parents, child, structure):
        yield Finding("noisy", True)


@dataclass(frozen=True, kw_only=True)
class Widen(Noise):
    """Changes shapes and says nothing of it."""

    kind: ClassVar[str] = "widen"

    def adapt(self, module, run):
        module.bert.pooler.extra = torch.nn.Linear(2, 2)
        return Adapted(module)


@dataclass(frozen=True, kw_only=True)
class WidenAndSay(Widen):
    kind: ClassVar[str] = "widen_and_say"

    def adapt(self, module, run):
        return Adapted(self.rebuild(module, {"size": 2}), structure={"size": 2})

    def rebuild(self, module, structure):
        module.bert.pooler.extra = torch.nn.Linear(structure["size"], 2)
        return module


@pytest.fixture
def start(chain, tmp_path):
    def opened(folder=None, rows=chain.rows):
        store = Store(chain.store)
        torch.manual_seed(0)
        network = open_network(folder or chain.merged.folder, TASK, store)
        session = Session(
            task=TASK, rows=rows, encoded=Encoded(TASK, network.processor), seed=0, store=store
        )
        return network, session

    return opened


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "growing"
    path.mkdir()
    return path


def test_what_is_written_opens_to_the_network_in_memory(start, folder, chain):
    network, session = start()

    outcome = perform(FineTune(fit=SHORT), network, session, identity=("1" * 64,), folder=folder)

    again = TASK.load(folder).module
    state = outcome.opened.module.state_dict()
    assert all(value.equal(state[name]) for name, value in again.state_dict().items())
    assert not any(part.training for part in outcome.opened.module.modules())


def test_all_chance_comes_from_the_seed(start, tmp_path):
    weights = []
    for index, seed in enumerate((0, 0, 1)):
        network, session = start()
        torch.manual_seed(index)
        target = tmp_path / str(index)
        target.mkdir()
        outcome = perform(
            Noise(), network, replace(session, seed=seed), identity=("1" * 64,), folder=target
        )
        weights.append(outcome.opened.module.classifier.weight)

    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_the_callers_generator_is_left_as_it_was(start, folder):
    network, session = start()
    before = torch.get_rng_state()

    perform(Noise(), network, session, identity=("1" * 64,), folder=folder)

    assert torch.get_rng_state().equal(before)


class TestCost:
    def test_a_step_that_trains_counts_what_could_learn(self, start, folder):
        network, session = start()

        outcome = perform(
            FineTune(train=("head",), fit=SHORT),
            network,
            session,
            identity=("1" * 64,),
            folder=folder,
        )

        assert outcome.cost.num_trainable == 2 * 32 + 2
        assert outcome.cost.num_parameters == sum(
            p.numel() for p in outcome.opened.module.parameters()
        )
        assert outcome.cost.num_bytes == (folder / "model.safetensors").stat().st_size
        assert outcome.settled["precision"]

    def test_a_step_that_does_not_train_counts_none_whatever_was_marked_before(self, start, folder):
        network, session = start()
        assert any(p.requires_grad for p in network.module.parameters())

        outcome = perform(Noise(), network, session, identity=("1" * 64,), folder=folder)

        assert outcome.cost.num_trainable == 0
        assert outcome.figures == {"drawn": 1.0}
        assert outcome.settled == {}

    def test_times_are_in_order_and_the_adapters_own(self, start, folder):
        network, session = start()

        outcome = perform(Noise(), network, session, identity=("1" * 64,), folder=folder)

        spent = (outcome.finished - outcome.started).total_seconds()
        assert 0 < outcome.seconds <= spent
        assert outcome.peak_bytes > 0
        assert outcome.started.utcoffset().total_seconds() == 0


class TestForm:
    def test_an_adapter_holds_only_its_own_and_needs_the_parent(self, start, folder, chain):
        network, session = start(chain.base)

        outcome = perform(LORA, network, session, identity=("1" * 64, "2" * 64), folder=folder)

        assert sorted(path.name for path in folder.iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        assert outcome.opened.form == "adapter"
        assert outcome.opened.requires == ("1" * 64, "2" * 64)
        assert outcome.fresh == {"classifier.weight", "classifier.bias"}
        assert outcome.prefix == "bert."
        assert outcome.structure["saved"] == ["classifier.bias", "classifier.weight"]
        # known to the next step as complete
        assert outcome.opened.fresh == frozenset()

    def test_a_whole_child_needs_nobody(self, start, folder):
        network, session = start()

        outcome = perform(Noise(), network, session, identity=("1" * 64,), folder=folder)

        assert (outcome.opened.form, outcome.opened.requires) == ("dense", ())

    def test_a_change_that_could_not_be_rebuilt_is_refused_now(self, start, folder):
        network, session = start(rows=None)

        with pytest.raises(LawBroken, match="'widen' changed the network") as caught:
            perform(Widen(), network, session, identity=("1" * 64,), folder=folder)

        assert "bert.pooler.extra" in caught.value.what
        assert "rebuild() in Widen" in caught.value.fix
        assert list(folder.iterdir()) == []

    def test_a_change_that_says_how_it_is_rebuilt_is_carried_on(self, start, folder):
        network, session = start(rows=None)
        earlier = {"adapter": {"earlier": {}}, "structure": {"x": 1}}

        outcome = perform(
            WidenAndSay(),
            replace(network, rebuild=(earlier,)),
            session,
            identity=("1" * 64,),
            folder=folder,
        )

        own = {"adapter": {"widen_and_say": {}}, "structure": {"size": 2}}
        assert outcome.opened.rebuild == (earlier, own)
