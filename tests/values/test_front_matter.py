from __future__ import annotations

import os

import pytest

from reuselib.errors import RecipeError
from reuselib.values.document import MAX_BYTES
from reuselib.values.front_matter import front_matter, read_front_matter

CARD = """\
---
license: apache-2.0
base_model:
  - org/one
date: 2024-01-01
---
# Title
---
license: mit
---
"""


@pytest.mark.parametrize("text", [CARD, CARD.replace("\n", "\r\n"), "\ufeff" + CARD])
def test_the_first_block_is_read(tmp_path, text):
    (tmp_path / "README.md").write_bytes(text.encode())

    document = read_front_matter(tmp_path)

    assert document
    assert document.value == {
        "license": "apache-2.0",
        "base_model": ["org/one"],
        "date": "2024-01-01",
    }
    assert document.problems == ()


@pytest.mark.parametrize("text", ["", "# Title\n---\nlicense: mit\n---\n", "---\nlicense: mit\n"])
def test_a_card_without_front_matter_has_none(text):
    assert front_matter(text) is None


def test_a_folder_without_a_card_has_none(tmp_path):
    assert read_front_matter(tmp_path) is None


def test_a_problem_names_the_line_of_the_card():
    with pytest.raises(RecipeError) as caught:
        front_matter("---\nlicense: mit\nbase: [a\n---\n")

    assert caught.value.problems[0].where == "README.md:3"


def test_nothing_is_constructed():
    document = front_matter("---\nx: !!python/object/apply:os.system [echo]\ny: 1\n---\n")

    assert document
    assert document.value == {"x": ["echo"], "y": 1}
    assert "not allowed" in document.problems[0].message


def test_a_card_without_an_end_is_read_no_further_than_the_limit(tmp_path):
    (tmp_path / "README.md").write_bytes(b"---\n" + b"a: 1\n" * MAX_BYTES)

    assert read_front_matter(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "README.md")

    assert read_front_matter(tmp_path) is None
