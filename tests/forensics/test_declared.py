from __future__ import annotations

import json
import os

import pytest

from reuselib.forensics.declared import MAX_PARENTS, Declared, declared_parents


def test_every_place_that_names_a_parent_is_read_and_each_parent_told_once(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nbase_model: org/a\nbase_model_relation: quantized\n---\n# x\n"
    )
    (tmp_path / "config.json").write_text('{"_name_or_path": "org/a"}')
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/x/b"}')

    assert declared_parents(tmp_path) == (
        Declared("org/a", "README.md", "quantized"),
        Declared("/home/x/b", "adapter_config.json", "adapter"),
    )


@pytest.mark.parametrize(
    "card", ["", "---\n: [\n---\n", "---\n- a\n---\n", "---\nbase_model: {a: b}\n---\n", "\xff\n"]
)
def test_what_cannot_be_read_names_no_parent(tmp_path, card):
    (tmp_path / "README.md").write_text(card, encoding="latin-1")
    (tmp_path / "config.json").write_text('{"_name_or_path": "a", "_name_or_path": "b"}')
    (tmp_path / "adapter_config.json").write_text("[]")

    assert declared_parents(tmp_path) == ()


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")

    assert declared_parents(tmp_path) == ()


def test_a_list_without_end_is_cut(tmp_path):
    names = json.dumps([f"org/{number}" for number in range(500)])
    (tmp_path / "README.md").write_text(f"---\nbase_model: {names}\n---\n")

    assert len(declared_parents(tmp_path)) == MAX_PARENTS
