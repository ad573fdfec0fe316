from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from forensics import zoo
from reuselib.cli import main
from reuselib.errors import SourceError
from reuselib.forensics.kin import Kinship, kin
from reuselib.testing.tiny import tiny_gpt2

PARENTS = {
    "a-1": "a",
    "a-2": "a",
    "a-3": "a",
    "a-merged": "a",
    "a-1-masked": "a-1",
    "a-1-int8": "a-1",
    "a-1-tuned": "a-1",
    "a-1-merged": "a-1",
    "a-1-tuned-int8": "a-1-tuned",
    "a-2-half": "a-2",
    "a-2-int4": "a-2",
    "a-2-shallow": "a-2",
    "a-merged-tuned": "a-merged",
    "b-1": "b",
    "b-masked": "b",
    "b-cut": "b",
    "b-1-int8": "b-1",
}
"""What was made from what. `c` and `d` are related to nothing."""

HOW = {
    "a-1": partial(zoo.trained, seed=1),
    "a-2": partial(zoo.trained, seed=2),
    "a-3": partial(zoo.trained, seed=3, only="layer.1"),
    "a-1-tuned": partial(zoo.trained, seed=4),
    "a-merged-tuned": partial(zoo.trained, seed=5),
    "b-1": partial(zoo.trained, seed=6),
}
CHANGES = {
    "masked": zoo.masked,
    "int8": zoo.int8,
    "int4": zoo.int4,
    "half": zoo.half,
    "cut": zoo.cut,
    "shallow": zoo.shallower,
    "merged": zoo.low_rank,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    top = tmp_path_factory.mktemp("kin")
    for name, seed in (("a", 0), ("b", 1), ("d", 2)):
        zoo.base(top / name, seed=seed, num_layers=2)
    tiny_gpt2(top / "c")
    for name, parent in PARENTS.items():
        if name in HOW:
            HOW[name](top / parent, top / name)
        else:
            change = CHANGES[name.rpartition("-")[2]]
            if change is zoo.low_rank:
                change = partial(zoo.low_rank, seed=len(name))
            zoo.made_from(top / parent, top / name, change)
    # in an order that tells nothing
    return sorted(top.iterdir(), key=lambda path: path.name[::-1])


@pytest.fixture(scope="module")
def kinship(folders) -> Kinship:
    return kin(folders)


def test_most_edges_of_a_known_tree_are_found(kinship):
    true = {frozenset(edge) for edge in PARENTS.items()}
    found = {frozenset((edge.parent, edge.child)) for edge in kinship.edges}

    assert len(found & true) >= 0.9 * len(true), sorted(map(sorted, found ^ true))


def test_an_edge_whose_direction_shows_in_the_weights_is_right(kinship):
    directed = [edge for edge in kinship.edges if edge.directed]

    assert len(directed) >= 10
    assert not [e for e in directed if PARENTS.get(e.parent) == e.child]


def test_most_directions_are_right_even_where_nothing_shows(kinship):
    true = {frozenset(edge) for edge in PARENTS.items()}
    found = [e for e in kinship.edges if frozenset((e.parent, e.child)) in true]
    right = [e for e in found if PARENTS.get(e.child) == e.parent]

    assert len(right) >= 0.8 * len(found)


def test_strangers_are_not_linked(kinship):
    assert kinship.alone == ("c", "d")
    assert not [e for e in kinship.edges if e.parent[0] != e.child[0]]


def test_everything_is_marked_as_inferred_and_says_why(kinship):
    assert {edge.tier for edge in kinship.edges} == {"inferred"}
    reasons = {edge.child: edge.reason for edge in kinship.edges}
    assert "a-1-masked looks like a-1 with 50% of 12 matrices" in reasons["a-1-masked"]
    assert "rank 2" in reasons["a-1-merged"]
    assert kinship.unchecked


def test_the_order_of_the_models_does_not_matter(folders, kinship):
    few = [each for each in folders if each.name.startswith("b")]

    one, other = kin(few), kin(few[::-1])

    assert one == other
    assert one.models == tuple(sorted(each.name for each in few))


def test_an_adapter_is_tied_to_what_it_fits(tmp_path, bert):
    update = zoo.lora(bert, tmp_path / "update")

    (edge,) = kin([update, bert]).edges

    assert (edge.parent, edge.child, edge.directed) == ("base", "update", True)


def test_it_takes_two(bert):
    with pytest.raises(SourceError, match="two or more"):
        kin([bert])
    with pytest.raises(SourceError, match="twice"):
        kin([bert, bert])


def test_the_verb_prints_edges_and_those_alone(folders, capsys):
    few = [str(each) for each in folders if each.name in ("b", "b-cut", "c")]

    assert main(["kin", *few]) == 0
    out = capsys.readouterr().out
    assert "b <- b-cut  [inferred, score 1.00]" in out
    assert "c: related to none of the others" in out
    assert main(["kin", *few, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alone"] == ["c"]
