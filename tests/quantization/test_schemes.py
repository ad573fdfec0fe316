from __future__ import annotations

import pytest

from reuselib.quantization.grid import Grid
from reuselib.quantization.schemes import Scheme, scheme


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        ("int8", None, Scheme(Grid(8, paired=True), "token")),
        ("int8-weight", None, Scheme(Grid(8), packed=True)),
        ("int8-weight", 32, Scheme(Grid(8, 32), packed=True)),
        ("int4-weight", None, Scheme(Grid(4, 128), packed=True)),
        ("int4-weight", 32, Scheme(Grid(4, 32), packed=True)),
    ],
)
def test_a_name_stands_for_a_scheme(name, size, wanted):
    assert scheme(name, group_size=size) == wanted


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="int8, int8-weight, int4-weight"):
        scheme("int2")
