"""A record sets no more weights free than its recipe does, and takes over what it can of the parent."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from chains import text_chain
from reuselib import Distill, FineTune, FitPlan, derive
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime
from reuselib.evidence.prove import prove_step
from reuselib.lineage.tensors import Tensors
from reuselib.lineage.verify import verify
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.module import ModuleTask
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.forging import part, restate, retouch
from reuselib.testing.tiny import tiny_bert, tiny_llama, tiny_rows

SHORT = FitPlan(epochs=1, learning_rate=1e-2)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return text_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def leaf(chain, tmp_path):
    """A child by `finetune` with `train=("head", "block[-1:]")`."""
    return shutil.copytree(chain.tuned.folder, tmp_path / "leaf")


def normed():
    from torch import nn

    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0))


def squared(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def internal(change):
    return lambda statement: change(part(statement, "internalParameters"))


def broken(folder, store):
    assert verify(folder).ok
    step = prove_step(folder, store=store)
    assert step.tier == "broken"
    return [each for each in step.findings if each.holds is False]


def scrambled(folder):
    torch.manual_seed(0)
    weights = {name: torch.randn_like(value) for name, value in Tensors(folder).items()}
    retouch(folder, weights)
    return sorted(weights)


class TestSelected:
    def test_random_weights_are_not_those_that_the_recipe_trains(self, chain, leaf):
        names = scrambled(leaf)
        restate(leaf, internal(lambda i: i["structure"].update(trained=names)))

        (wrong,) = broken(leaf, chain.store)

        assert wrong.claim == "what is recorded as trained is what the recipe selects"
        assert wrong.tensor.startswith("bert.")
        assert "does not select it" in wrong.detail

    def test_one_tensor_more_is_named(self, chain, leaf):
        more = "bert.embeddings.word_embeddings.weight"
        restate(
            leaf,
            internal(lambda i: i["structure"].update(trained=[*i["structure"]["trained"], more])),
        )

        (wrong,) = broken(leaf, chain.store)

        assert wrong.tensor == more

    def test_a_configuration_of_another_network_explains_no_selector(self, chain, leaf):
        config = json.loads((leaf / "config.json").read_text())
        config["num_hidden_layers"] = 1
        (leaf / "config.json").write_text(json.dumps(config))
        restate(leaf)

        step = prove_step(leaf, store=chain.store)

        assert step.tier == "recorded"
        assert "block[-1:]" in step.why
        assert "a network without this" in step.why

    @pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels"])
    def test_a_configuration_of_an_endless_network_is_not_built(self, chain, leaf, key):
        config = json.loads((leaf / "config.json").read_text())
        (leaf / "config.json").write_text(json.dumps({**config, key: 10**12}))
        restate(leaf)

        step = prove_step(leaf, store=chain.store)

        assert step.tier == "recorded"
        assert f"{key} = {10**12}" in step.why

    @pytest.mark.parametrize(
        ("train", "num_trained"),
        [
            (("*.bias", "classifier"), None),
            (("all",), 41),
            (("head & *.weight", "stem", "head"), None),
        ],
    )
    def test_what_an_honest_child_records_is_what_is_matched_again(
        self, tmp_path, train, num_trained
    ):
        rows = Splits.of(tiny_rows(32), tiny_rows(16, seed=1))
        child = derive(
            tiny_bert(tmp_path / "base"),
            FineTune(train=train, fit=SHORT),
            task=TextClassification(),
            data=rows,
            runtime=Runtime(store=tmp_path / "store"),
        )

        step = prove_step(child.folder, store=tmp_path / "store")

        assert step.tier == "proven", step
        if num_trained:
            assert (step.compared, step.num_tensors) == (0, num_trained)
            assert step.extent.startswith("0 of 41 tensors compared by value, all may be anything")

    def test_a_glob_trains_no_statistics_of_a_norm(self, tmp_path):
        """Names alone do not tell a weight from a buffer."""
        rows = [{"x": [float(index % 7), 1.0], "y": float(index % 2)} for index in range(32)]
        child = derive(
            normed(),
            FineTune(train=("1", "all & 2.*"), fit=SHORT),
            task=ModuleTask(network=normed, criterion=squared),
            data=Splits.of(rows, rows[:8]),
            runtime=Runtime(store=tmp_path / "store"),
        )

        step = prove_step(child.folder, store=tmp_path / "store")

        assert step.tier == "proven", step
        assert step.compared == 2

    def test_blocks_of_a_network_from_python_are_not_known(self, tmp_path):
        rows = [{"x": [float(index % 7), 1.0], "y": float(index % 2)} for index in range(32)]
        child = derive(
            normed(),
            FineTune(train=("block[-1:]",), fit=SHORT),
            task=ModuleTask(network=normed, criterion=squared),
            data=Splits.of(rows, rows[:8]),
            runtime=Runtime(store=tmp_path / "store"),
        )

        step = prove_step(child.folder, store=tmp_path / "store")

        assert step.tier == "recorded", step
        assert "block[-1:]" in step.why

    def test_a_tied_tensor_of_a_student_counts_under_both_names(self, tmp_path):
        rows = Splits.of(tiny_rows(16), tiny_rows(8, seed=1))
        child = derive(
            tiny_llama(tmp_path / "base"),
            Distill(blocks=(0,), fit=SHORT),
            task=CausalLM(),
            data=rows,
            runtime=Runtime(store=tmp_path / "store"),
        )

        assert prove_step(child.folder, store=tmp_path / "store").tier == "proven"


class TestTakenOver:
    def test_a_prefix_that_no_tensor_has_hides_none(self, chain, leaf):
        names = sorted(Tensors(leaf))
        restate(
            leaf,
            internal(
                lambda i: i.update(prefix="x.", dropped=[f"x.{n}" for n in names], fresh=names)
            ),
        )

        assert any("has nothing of it" in each.detail for each in broken(leaf, chain.store))

    def test_what_is_renamed_out_of_sight_is_found(self, chain, leaf):
        name = "classifier.weight"
        restate(
            leaf,
            internal(lambda i: i.update(renamed={name: "away"}, dropped=["away"], fresh=[name])),
        )

        wrong = broken(leaf, chain.store)

        assert [each.tensor for each in wrong] == [name]
        assert "recorded as dropped" in wrong[0].detail
