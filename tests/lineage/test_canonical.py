from __future__ import annotations

import json
import math
from contextlib import suppress

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)


REFUSED = object()


def test_known_vector_of_the_standard_is_written_exactly():
    value = json.loads(
        '{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        '"string": "\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/",'
        '"literals": [null, true, false]}'
    )

    assert canonical.dumps(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@given(values)
def test_written_values_are_read_back_equal_and_written_equal(value):
    data = canonical.dumps(value)

    assert canonical.loads(data) == value
    assert canonical.dumps(canonical.loads(data)) == data
    assert json.loads(data, parse_int=float) == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"x":{"a":1,"b":2,"a":3}}',
        b"\xef\xbb\xbf1",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"9007199254740992.5e9999",
        b"9007199254740993",
        b"-9007199254740993",
        b"9" * 1_000_000,
        b"[" * 65 + b"]" * 65,
        b"[" * 200_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"\xff",
        '{"a":1}'.encode("utf-16"),
        b"",
        b"{} {}",
        b"{'a':1}",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_ambiguous_json_is_refused(data):
    with pytest.raises(IntegrityError, match="BAD_JSON") as caught:
        canonical.loads(data, path="x.json")

    assert caught.value.code == "BAD_JSON"


def test_64_levels_are_read():
    assert canonical.loads(b"[" * 64 + b"]" * 64)


def test_oversize_is_refused_before_it_is_parsed():
    with pytest.raises(IntegrityError, match="11 bytes, at most 10"):
        canonical.loads(b'"123456789"', limit=10)


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), math.nan, math.inf, "\ud800", {"\ud800": 1}, {1: 2}, {1, 2}, b"x"],
    ids=repr,
)
def test_what_json_cannot_hold_is_not_written(value):
    with pytest.raises(IntegrityError) as caught:
        canonical.dumps(value)

    assert caught.value.code == "BAD_JSON"


def test_nothing_is_written_that_could_not_be_read():
    value: object = 1
    for _ in range(65):
        value = [value]

    with pytest.raises(IntegrityError, match="nested deeper"):
        canonical.dumps(value)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused_but_never_crash(data):
    value = REFUSED
    with suppress(IntegrityError):
        value = canonical.loads(data)

    assert value is REFUSED or json.loads(data, parse_int=float) == value


@given(values | st.floats() | st.integers() | st.dictionaries(st.text(), st.floats() | st.text()))
def test_what_is_written_is_what_the_reference_writes(value):
    """RFC 8785 says one form only, so two writers must agree in every byte."""
    try:
        expected = rfc8785.dumps(value)
    except ValueError:
        with pytest.raises(IntegrityError):
            canonical.dumps(value)
    else:
        assert canonical.dumps(value) == expected


@pytest.mark.parametrize(
    ("unit", "times"),
    [(b"[],", 2_000_000), (b"{},", 2_000_000), (b"0,", 5_000_000), (b'"a",', 4_000_000)],
)
def test_what_takes_more_memory_than_the_file_is_refused_before_it_is_read(unit, times):
    with pytest.raises(IntegrityError, match=r"LIMIT.* MB of memory"):
        canonical.loads(b"[" + unit * times + b"0]")


def test_a_million_indices_and_the_header_of_a_large_model_are_read():
    indices = b"[" + b",".join(b"%d" % number for number in range(10**6)) + b"]"
    tensor = b'{"dtype":"BF16","shape":[8192,8192],"data_offsets":[134217728,268435456]}'
    layers = (b'"model.layers.%d.mlp.weight":%b' % (number, tensor) for number in range(50_000))
    header = b"{" + b",".join(layers) + b"}"

    assert isinstance(canonical.loads(indices), list)
    assert isinstance(canonical.loads(header), dict)
