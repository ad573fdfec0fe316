from __future__ import annotations

import json

import pytest

from reuselib.values.visible import visible, visible_json, visible_lines

HOSTILE = "é\x1b[2K\x9b1A\u202e\x7f\u2028\U000e0041\r\n\t\u00a0ok"


@pytest.mark.parametrize("text", ["", "plain é 中 😀 text", 'quotes " and \\ stay'])
def test_what_can_be_seen_stays(text):
    assert visible(text) == visible_lines(text) == visible_json(text) == text


def test_what_cannot_be_seen_is_written_out():
    assert visible(HOSTILE).isprintable()
    assert visible("a\x1b\u202eb") == "a\\u001b\\u202eb"


def test_lines_stay_lines():
    assert visible_lines("a\x1b\nb\r") == "a\\u001b\nb\\u000d"


@pytest.mark.parametrize("indent", [None, 1])
def test_json_stands_for_the_same_value(indent):
    value = {HOSTILE: [HOSTILE, 1]}
    written = visible_json(json.dumps(value, ensure_ascii=False, indent=indent))

    assert json.loads(written) == value
    assert written.replace("\n", "").isprintable()
