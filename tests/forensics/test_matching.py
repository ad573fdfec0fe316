from __future__ import annotations

import pytest

from reuselib.forensics.matching import block_of, match
from reuselib.forensics.view import Logical
from reuselib.lineage.rows import TensorRow


def model(names: dict[str, int], content: str = "x") -> dict[str, Logical]:
    """Matrices with so many rows; the digest is the name's last parts unless told otherwise."""
    return {
        name: Logical(
            name, "F32", (size, 2), (TensorRow(name, "F32", (size, 2), f"{content}{name}", "f"),)
        )
        for name, size in names.items()
    }


LAYERS = {f"layer.{number}.{part}.weight": 8 for number in range(3) for part in ("up", "down")}


@pytest.mark.parametrize(
    ("front", "back"),
    [("", "bert."), ("model.", ""), ("model.", "base_model.model."), ("a.", "b.c.d.")],
)
def test_names_are_matched_whatever_stands_in_front(front, back):
    one = model({front + name: size for name, size in LAYERS.items()})
    other = model({back + name: size for name, size in LAYERS.items()} | {"head.weight": 2}, "y")

    found = match(one, other)

    assert found.pairs == {front + name: back + name for name in LAYERS}


def test_equal_names_are_matched_as_they_are():
    found = match(model(LAYERS), model(LAYERS, "y"))

    assert found.pairs == {name: name for name in LAYERS}
    assert found.prefixes == ("", "")


def test_one_name_that_fits_by_chance_renames_nothing():
    one = model({"embeddings.weight": 4, **LAYERS})
    other = model({"classifier.weight": 4, "x.y.z.weight": 8})

    assert match(one, other).pairs == {}


def test_each_is_matched_at_most_once():
    one = model({"a.weight": 2, "x.a.weight": 2})
    other = model({"a.weight": 2})

    assert [*match(one, other).pairs.values()] == ["a.weight"]


def test_blocks_that_were_numbered_anew_are_found_by_their_content():
    one = model(LAYERS)
    other = {
        name.replace("layer.1", "layer.0").replace("layer.2", "layer.1"): Logical(
            name, "F32", weight.shape, weight.parts
        )
        for name, weight in one.items()
        if "layer.0" not in name
    }

    found, back = match(one, other), match(other, one)

    assert found.blocks == {0: 1, 1: 2}
    assert found.pairs["layer.2.up.weight"] == "layer.1.up.weight"
    assert back.pairs == {theirs: mine for mine, theirs in found.pairs.items()}


def test_the_number_of_a_block():
    assert block_of("bert.encoder.layer.11.output.weight") == 11
    assert block_of("pooler.dense.weight") is None
    assert block_of(f"layer.{'9' * 5000}.weight") is None
