from __future__ import annotations

import pytest
import torch

from reuselib.measure.claims import bit_equal, faultless, same_bits, same_shapes


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.0, float("nan"), -0.0]),
        torch.tensor(3.5),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
        torch.arange(6).reshape(2, 3).T,
    ],
    ids=["nan", "scalar", "empty", "bool", "bf16", "not contiguous"],
)
def test_a_tensor_has_the_bits_of_its_copy(tensor):
    assert same_bits(tensor, tensor.clone())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([1.0]), torch.tensor([1.0]).nextafter(torch.tensor([2.0]))),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(1), torch.tensor(0.0)),
    ],
    ids=["sign of zero", "last bit", "dtype", "shape", "number of dimensions"],
)
def test_bits_differ(one, other):
    assert not same_bits(one, other)


def test_equal_tensors_hold_and_are_counted():
    parent = {"a": torch.ones(2), "b": torch.zeros(2)}

    finding = bit_equal("frozen", parent, {**parent, "c": torch.ones(1)}, ["a", "b"])

    assert (finding.claim, finding.holds, finding.tensor) == ("frozen", True, "")
    assert "2 tensors" in finding.detail


def test_the_first_tensor_that_differs_is_named():
    parent = {"a": torch.ones(2), "b": torch.zeros(2), "c": torch.zeros(2)}

    finding = bit_equal(
        "frozen", parent, {**parent, "b": -torch.zeros(2), "c": torch.ones(2)}, "abc"
    )

    assert (finding.holds, finding.tensor) == (False, "b")


def test_a_tensor_that_the_parent_lacks_is_not_equal():
    finding = bit_equal("frozen", {}, {"a": torch.ones(2)}, ["a"])

    assert (finding.holds, finding.tensor) == (False, "a")
    assert "no such tensor" in finding.detail


def test_only_the_first_fault_is_looked_for():
    def faults():
        yield "a", "is odd"
        raise AssertionError

    found = faultless("none is odd", faults(), compared=3)

    assert (found.holds, found.tensor, found.detail, found.compared) == (False, "a", "is odd", 0)
    assert faultless("none is odd", iter(()), compared=3).compared == 3


def test_same_names_and_shapes_hold_whatever_the_values():
    assert same_shapes({"a": torch.ones(2)}, {"a": torch.zeros(2)}).holds


@pytest.mark.parametrize(
    ("child", "tensor", "detail"),
    [
        ({"a": torch.ones(3), "b": torch.ones(1)}, "a", r"shape \(3,\), the parent's is \(2,\)"),
        ({"a": torch.ones(2)}, "b", "missing in the child"),
        ({"a": torch.ones(2), "b": torch.ones(1), "c": torch.ones(1)}, "c", "no such tensor"),
    ],
)
def test_another_shape_name_or_number_fails(child, tensor, detail):
    import re

    finding = same_shapes({"a": torch.ones(2), "b": torch.ones(1)}, child)

    assert (finding.holds, finding.tensor) == (False, tensor)
    assert re.search(detail, finding.detail)


def test_a_new_name_is_fine_if_it_was_trained():
    parent, child = {"a": torch.ones(2)}, {"a": torch.ones(2), "head": torch.ones(1)}

    assert same_shapes(parent, child, {"head"}).holds
    assert not same_shapes(parent, child, {"tail"}).holds


def test_a_trained_name_that_the_parent_has_may_not_change_its_shape():
    assert not same_shapes({"head": torch.ones(2)}, {"head": torch.ones(3)}, {"head"}).holds
