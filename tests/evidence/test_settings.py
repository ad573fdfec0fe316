"""What a child has besides weights, held against its parent's."""

from __future__ import annotations

import json
import shutil

import pytest

from chains import text_chain
from reuselib.evidence.prove import prove, prove_step
from reuselib.testing.forging import restate


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return text_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def leaf(chain, tmp_path):
    return shutil.copytree(chain.tuned.folder, tmp_path / "leaf")


def edit(folder, name, **fields):
    value = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**value, **fields}))
    restate(folder)


def test_an_honest_chain_keeps_what_it_was_given(chain):
    proof = prove(chain.tuned.folder, store=chain.store)

    assert [step.unlike for step in proof.steps] == [(), (), ()]


def test_changed_keys_of_the_configuration_are_named(chain, leaf):
    edit(leaf, "config.json", layer_norm_eps=3e-2, hidden_act="relu", odd=1)

    proof = prove(leaf, store=chain.store)

    name = chain.tuned.manifest.name
    assert proof.unchecked[:3] == (
        f"{name}: config.json: hidden_act differs from the parent's",
        f"{name}: config.json: layer_norm_eps differs from the parent's",
        f"{name}: config.json: odd is not in the parent's",
    )


def test_a_changed_tokenizer_and_an_added_template_are_named(chain, leaf):
    (leaf / "chat_template.jinja").write_text("x")
    vocabulary = json.loads((leaf / "tokenizer.json").read_text())["model"]
    edit(leaf, "tokenizer.json", model={**vocabulary, "vocab": {}})

    assert prove_step(leaf, store=chain.store).unlike == (
        "chat_template.jinja: the parent has no such file",
        "tokenizer.json: model differs from the parent's",
    )


def test_labels_in_another_order_turn_the_answers_round(chain, leaf):
    labels = json.loads((leaf / "config.json").read_text())["id2label"]
    edit(leaf, "config.json", id2label=dict(zip(labels, [*labels.values()][::-1], strict=True)))

    step = prove_step(leaf, store=chain.store)

    assert step.tier == "broken"
    assert "labels in the order of the task" in next(
        each.claim for each in step.findings if each.holds is False
    )


def test_many_differences_are_counted(chain, leaf):
    edit(leaf, "config.json", **{f"key{index:02}": 1 for index in range(30)})

    unlike = prove_step(leaf, store=chain.store).unlike

    assert len(unlike) == 21
    assert unlike[-1] == "10 more such differences"
