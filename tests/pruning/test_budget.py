from __future__ import annotations

import pytest
import torch

import zoo
from reuselib.errors import IncompatibleStep
from reuselib.network.families import family
from reuselib.pruning.budget import Pool, chosen, head_pools, most, ranked, uniform


def pool(*scores, name="block:units", groups=1, places=("block",)):
    return Pool(name, torch.tensor(scores).double(), places, groups)


@pytest.mark.parametrize(
    ("size", "share", "gone"),
    [(10, 0.3, 3), (10, 0.7, 7), (12, 0.25, 3), (12, 0.3, 3), (3, 0.5, 1)],
)
def test_a_share_is_never_exceeded(size, share, gone):
    assert most(pool(*range(size)), share) == gone


@pytest.mark.parametrize(("size", "share", "stay"), [(100, 0.5, 56), (96, 0.5, 48), (100, 0.99, 8)])
def test_what_stays_is_rounded_up_to_a_multiple(size, share, stay):
    assert size - most(pool(*range(size)), share, 8) == stay


def test_the_lowest_go_and_of_equals_the_last():
    assert pool(3, 1, 2, 1, 1).keep(2) == [0, 1, 2]


@pytest.mark.parametrize(
    ("share", "gone", "stay"),
    [
        # groups (0, 1) (2, 3) (4, 5) with sums 10, 8, 7
        (0.34, 2, [0, 1, 2, 3]),
        (0.5, 3, [0, 3, 5]),
        (0.7, 4, [0, 1]),
        (0.2, 0, None),
    ],
)
def test_heads_go_by_whole_groups_or_as_many_of_each(share, gone, stay):
    heads = pool(9, 1, 2, 6, 3, 4, groups=3)

    assert most(heads, share) == gone
    if stay:
        assert heads.keep(gone) == stay


def test_a_single_group_loses_heads():
    heads = pool(9, 1, 2, 6, groups=1)

    assert most(heads, 0.25) == 1
    assert heads.keep(1) == [0, 2, 3]


def test_uniform_takes_the_same_share_of_each():
    pools = [pool(1, 2, 3, 4, name="a:units"), pool(90, 80, 70, 60, 50, 40, name="b:units")]

    assert uniform(pools, 0.5) == {"a:units": 2, "b:units": 3}


def test_a_share_without_effect_is_refused_with_the_least_that_has_one():
    with pytest.raises(IncompatibleStep, match=r"0\.1 of the 4 units of block") as caught:
        uniform([pool(1, 2, 3, 4)], 0.1)
    assert "at least 0.25, which is 1" in caught.value.expected
    with pytest.raises(IncompatibleStep) as caught:
        uniform([pool(*range(20))], 0.15, 8)
    assert "which is 4" in caught.value.expected
    with pytest.raises(IncompatibleStep, match="none that can go"):
        uniform([pool(1)], 0.9)


def test_ranked_takes_the_lowest_of_all_but_leaves_one_in_each():
    pools = [pool(1, 2, 3, name="a:units"), pool(10, 20, 30, 40, 50, 60, name="b:units")]

    assert ranked(pools, 0.34, weighed=False) == {"a:units": 2, "b:units": 1}


def test_ranked_compares_with_the_mean_of_each_pool():
    pools = [pool(0.9, 1.0, 1.1, name="a:units"), pool(1, 300, 302, name="b:units")]

    assert ranked(pools, 0.2) == {"a:units": 0, "b:units": 1}


def test_ranked_takes_heads_by_groups():
    pools = [pool(1, 9, 5, 5, groups=2, name="a:heads"), pool(2, 2, 7, 7, groups=2, name="b:heads")]

    assert ranked(pools, 0.3, weighed=False) == {"a:heads": 0, "b:heads": 2}
    with pytest.raises(IncompatibleStep, match="none that can go"):
        ranked(pools, 0.2)


def test_ranked_counts_heads_of_a_shared_set_in_every_place():
    shared = pool(1, 5, 5, 5, name="a:heads", groups=4, places=("x", "y", "z"))
    single = pool(2, 6, 6, 6, name="b:heads", groups=4, places=("w",))

    # 16 heads, of which a share of 0.13 is 2: too few for the three places that lose one together
    assert ranked([single, shared], 0.26, weighed=False) == {"b:heads": 1, "a:heads": 1}
    with pytest.raises(IncompatibleStep):
        ranked([single, shared], 0.13, weighed=False)


def test_one_set_of_heads_is_chosen_for_a_stack_that_shares_it():
    found = family(zoo.network("t5"))
    attentions = [a for block in found.blocks for a in block.attentions]
    scores = {a.heads_axis: torch.tensor([1.0, 2.0, 3.0, 4.0]).double() for a in attentions}
    scores[found.blocks[2].attention.heads_axis] = torch.tensor([9.0, 0, 0, 0]).double()

    pools = head_pools(found, found.blocks, scores)
    stay = chosen(pools, uniform(pools, 0.5))

    assert [len(each.places) for each in pools] == [3, 2, 2]
    assert {tuple(stay[b.attention.name]) for b in found.of_stack("encoder.block")} == {(0, 3)}
    assert stay[found.blocks[-1].attentions[1].name] == [2, 3]


def test_key_value_heads_count_with_the_heads_that_they_serve():
    found = family(zoo.network("llama"))
    block = found.blocks[0]
    scores = {
        block.attention.heads_axis: torch.tensor([1.0, 1.0, 2.0, 2.0]).double(),
        block.attention.groups_axis: torch.tensor([8.0, 1.0]).double(),
    }

    (heads,) = head_pools(found, [block], scores)

    assert heads.keep(2) == [0, 1]
