from __future__ import annotations

import pytest
from torch import nn

from reuselib.errors import IncompatibleStep
from reuselib.quantization.choosing import assigned, chosen, skipped
from reuselib.quantization.replacing import linear_layers


@pytest.fixture
def module():
    return nn.ModuleDict({name: nn.Linear(4, 4) for name in ("up", "down", "head")})


def test_what_is_said_of_a_layer_beats_what_is_said_of_all(module):
    layers = linear_layers(module)

    assert chosen(layers, "int8", {"up": "int4-weight", "head": "int8-weight"}, {"head"}) == {
        "up": "int4-weight",
        "down": "int8",
        "head": "int8-weight",
    }


def test_the_head_is_skipped_unless_selectors_are_given(module):
    layers = linear_layers(module)

    assert skipped(module, None, layers, ("head",)) == {"head"}
    assert skipped(module, ("up", "down"), layers, ("head",)) == {"up", "down"}
    assert skipped(module, (), layers, ("head",)) == frozenset()


def test_selectors_may_overlap_only_if_they_agree(module):
    layers = linear_layers(module)

    assert assigned(module, {"up": "none", "u*": "none"}, layers, ()) == {"up": "none"}
    with pytest.raises(IncompatibleStep, match=r"`schemes` says .* of up by"):
        assigned(module, {"up": "none", "u*": "int8"}, layers, ())


def test_a_selector_of_no_layer_is_refused(module):
    module["norm"] = nn.LayerNorm(4)

    with pytest.raises(IncompatibleStep, match="'norm' in `schemes` names no linear layer"):
        assigned(module, {"norm": "int8"}, linear_layers(module), ())


def test_nothing_left_to_do_is_refused(module):
    with pytest.raises(IncompatibleStep, match="no linear layer") as caught:
        chosen(linear_layers(module), "int8", {}, {"up", "down", "head"})
    assert caught.value.fix == "shorten `skip`"
