from __future__ import annotations

import torch

from reuselib.forensics.cuts import Cut, is_cut

WHOLE = torch.arange(24.0).reshape(6, 4)


def test_rows_and_columns_that_were_taken_out_are_found_in_either_order():
    assert is_cut(WHOLE, WHOLE[[0, 3, 5]]) == Cut(0, 3, 3)
    assert is_cut(WHOLE[:, [1, 2]], WHOLE) == Cut(1, 2, 2)


def test_slices_that_changed_are_counted_as_not_found():
    small = WHOLE[[0, 3, 5]].clone()
    small[1] += 1

    found = is_cut(WHOLE, small)

    assert found == Cut(0, 2, 3)
    assert not found.holds


def test_a_slice_counts_once():
    assert is_cut(WHOLE, WHOLE[[0, 0, 0]]) == Cut(0, 1, 3)


def test_what_says_nothing_is_left_out():
    assert is_cut(WHOLE, WHOLE[:2, :2]) is None
    assert is_cut(WHOLE, WHOLE[0]) is None
    assert is_cut(WHOLE, WHOLE[:2].double()) is None
    assert is_cut(WHOLE, WHOLE[:0]) is None
