from __future__ import annotations

import pytest

from reuselib.values.scalars import LARGEST, lookalike, needs_quotes, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.5E3", 1500.0), (".5", 0.5), ("5.", 5.0), ("-3", -3), ("+3", 3), ("0", 0),
        ("true", True), ("False", False), ("", None), ("~", None), ("null", None),
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("2024-01-01", "2024-01-01"), ("12:30", "12:30"),
        ("007", "007"), ("0x1F", "0x1F"), ("1_000", "1_000"), (".inf", ".inf"), (".nan", ".nan"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_what_yaml_1_2_says(text, value):
    read = plain(text)

    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", [str(LARGEST + 1), "-" + "9" * 400, "1e999"])
def test_a_number_that_a_record_cannot_hold_is_refused(text):
    with pytest.raises(ValueError, match=r"beyond 2\^53|too large"):
        plain(text)


def test_the_largest_integer_is_exact():
    assert plain(str(LARGEST)) == 2**53


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("no", "false"),
        ("On", "true"),
        ("1_000", "1000"),
        ("0,5", "0.5"),
        ("8", "8"),
        ("eight", None),
    ],
)
def test_what_was_meant_by_a_string(text, meant):
    assert lookalike(text) == meant


@pytest.mark.parametrize(
    ("text", "needed"), [("1e-4", True), ("true", True), ("9" * 30, True), ("no", False)]
)
def test_a_string_that_looks_like_something_else_needs_quotes(text, needed):
    assert needs_quotes(text) is needed
