from __future__ import annotations

import pytest
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from reuselib.errors import SelectorError
from reuselib.network.parts import parts
from reuselib.network.selectors import select, select_modules
from reuselib.testing.tiny import tiny_bert, tiny_cnn, tiny_llama

HEAD = ("classifier",)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> nn.Module:
    folder = tiny_bert(tmp_path_factory.mktemp("bert"), head=True, num_layers=3)
    return AutoModelForSequenceClassification.from_pretrained(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path_factory.mktemp("llama")))


def names(module: nn.Module, *starts: str) -> set[str]:
    return {name for name, _ in module.named_parameters() if name.startswith(starts)}


def layers(*numbers: int) -> tuple[str, ...]:
    return tuple(f"bert.encoder.layer.{number}." for number in numbers)


def test_words_are_the_parts(bert):
    found = parts(bert, HEAD)

    assert select(bert, ["all"], head=HEAD) == names(bert, "")
    assert select(bert, ["head"], head=HEAD) == found.head
    assert select(bert, ["stem"], head=HEAD) == found.stem
    assert select(bert, ["tail"], head=HEAD) == found.tail
    assert select(bert, ["backbone"], head=HEAD) == names(bert, "bert.")


@pytest.mark.parametrize(
    ("selector", "numbers"),
    [
        ("block[0]", [0]),
        ("block[-1]", [2]),
        ("block[1:3]", [1, 2]),
        ("block[-2:]", [1, 2]),
        ("block[:-1]", [0, 1]),
        ("block[:]", [0, 1, 2]),
    ],
)
def test_blocks_are_counted_as_in_python(bert, selector, numbers):
    assert select(bert, [selector], head=HEAD) == names(bert, *layers(*numbers))


def test_a_class_selects_what_lies_in_its_modules(bert):
    linear = {
        f"{name}.{kind}"
        for name, module in bert.named_modules()
        if isinstance(module, nn.Linear)
        for kind in ("weight", "bias")
    }

    assert select(bert, ["op:Linear"], head=HEAD) == linear
    assert select(bert, ["op:BertLayer"], head=HEAD) == names(bert, "bert.encoder.")


def test_a_base_class_selects_its_children():
    module = tiny_cnn()

    norms = {"1.weight", "1.bias", "4.weight", "4.bias"}
    # A private base class of every batch norm in torch.
    assert select(module, ["op:_BatchNorm"], head=("8",)) == norms


def test_globs_begin_at_any_dot_and_cover_what_a_module_holds(bert):
    biases = {name for name, _ in bert.named_parameters() if name.endswith(".bias")}

    assert select(bert, ["*.bias"], head=HEAD) == biases
    assert select(bert, ["encoder.layer.1"], head=HEAD) == names(bert, *layers(1))
    assert select(bert, ["bert.encoder.layer.1.*"], head=HEAD) == names(bert, *layers(1))
    assert len(select(bert, ["query"], head=HEAD)) == 6


def test_a_list_is_a_union_and_an_ampersand_an_intersection(bert):
    assert select(bert, ["head", "block[0]"], head=HEAD) == names(bert, "classifier.", *layers(0))
    assert select(bert, ["block[-1] & query & *.bias"], head=HEAD) == {
        "bert.encoder.layer.2.attention.self.query.bias"
    }


def test_modules_are_leaves_that_are_selected_whole(bert):
    found = select_modules(bert, ["block[1] & op:Linear"], head=HEAD)

    start = layers(1)[0]
    assert [name.removeprefix(start) for name in found] == [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ]


def test_a_tied_output_layer_is_no_target_of_its_own(llama):
    found = select_modules(llama, ["op:Linear"], head=("lm_head",))

    assert "lm_head" not in found
    assert len(found) == 2 * 7


def test_a_head_with_borrowed_weights_says_where_they_are(llama):
    with pytest.raises(SelectorError, match="shared with the stem") as caught:
        select(llama, ["head"], head=("lm_head",))

    assert "`stem`" in caught.value.fix


@pytest.mark.parametrize(
    ("selector", "what", "fix"),
    [
        ("block[7]", "3 blocks", "`block[0]` to `block[2]`"),
        ("block[1:7]", "reaches beyond.*3 blocks", "block[2]"),
        ("block[2:1]", "matches nothing.*3 blocks", "block[2]"),
        ("block[-4:]", "reaches beyond", "block[2]"),
        ("block[a]", "malformed", "block[-2:]"),
        ("blocks[1]", "malformed", "block[-2:]"),
        ("op:Linaer", "'Linaer' has parameters", "`op:Linear`"),
        ("op:Dropout", "'Dropout' has parameters", ""),
        ("clasifier", "matches nothing", "`classifier`"),
        ("haed", "matches nothing", "`head`"),
        ("head & stem", "no parameter is in all of", "separate"),
        ("", "empty", ""),
        ("head &", "empty", ""),
    ],
)
def test_a_selector_that_is_wrong_says_what_is_near(bert, selector, what, fix):
    with pytest.raises(SelectorError, match=what) as caught:
        select(bert, [selector], head=HEAD)

    assert fix in caught.value.fix


def test_one_wrong_selector_in_a_list_is_an_error(bert):
    with pytest.raises(SelectorError):
        select(bert, ["head", "nothing_like_this"], head=HEAD)


def test_no_selector_is_an_error(bert):
    with pytest.raises(SelectorError, match="no selector"):
        select(bert, [], head=HEAD)


def test_parameters_without_their_module_are_no_modules(bert):
    with pytest.raises(SelectorError, match="no module as a whole"):
        select_modules(bert, ["query & *.bias"], head=HEAD)


def test_a_network_without_blocks_says_so():
    with pytest.raises(SelectorError, match="0 blocks"):
        select(nn.Linear(2, 2), ["block[0]"], head=())
