"""Sentences from docstrings: whole, distinct, cached, and never at the price of an import."""

from collections import Counter

import pytest

from reuselib.data import docstrings

DOCSTRING = """Compute the mean of the values along an axis. Missing values are left out
of the sum. see below

    code = block(that, is_indented)

Args:
    x: an argument that must not become a sentence, however long it may be.

>>> example()

Second paragraph whose only sentence ends here. Short one.
"""


def test_only_whole_sentences_of_prose_are_kept():
    assert docstrings.split_sentences(DOCSTRING) == [
        "Compute the mean of the values along an axis.",
        "Second paragraph whose only sentence ends here.",
    ]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An own cache, and few packages so that it is soon filled."""
    monkeypatch.setenv("REUSELIB_CACHE", str(tmp_path))
    monkeypatch.setattr(docstrings, "PACKAGES", ("accelerate", "peft"))
    monkeypatch.setattr(docstrings, "NUM_SENTENCES", 200)
    return tmp_path


def test_rows_are_distinct_and_capped_a_package(cache):
    rows, versions = docstrings.read()

    assert len({row["text"] for row in rows}) == len(rows)
    assert set(versions) == {"accelerate", "peft"}
    assert all(100 < count <= 200 for count in Counter(row["package"] for row in rows).values())


def test_a_sentence_of_two_packages_belongs_to_neither(tmp_path, monkeypatch):
    shared = "This sentence is found in both packages."
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        own = f"This sentence is only found in the {name} one."
        (tmp_path / name / "__init__.py").write_text(f'"""{shared} {own}"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(docstrings, "PACKAGES", ("first", "second"))

    assert docstrings._sentences() == [
        {"text": f"This sentence is only found in the {name} one.", "package": name}
        for name in ("first", "second")
    ]


def test_the_cache_holds_what_reading_gives(cache):
    first, _ = docstrings.read()
    (file,) = (cache / "samples").iterdir()
    written = file.stat().st_mtime_ns

    again, _ = docstrings.read()

    assert again == first
    assert file.stat().st_mtime_ns == written


def test_a_damaged_cache_is_made_again(cache):
    first, _ = docstrings.read()
    (file,) = (cache / "samples").iterdir()
    whole = file.read_bytes()

    for damaged in (b"", whole[:-200], whole.replace(b"the", b"teh", 1), b"\xff" + whole):
        file.write_bytes(damaged)
        assert docstrings.read()[0] == first
        assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(cache, monkeypatch):
    (cache / "file").write_text("not a folder")
    monkeypatch.setenv("REUSELIB_CACHE", str(cache / "file"))

    assert docstrings.read()[0]


def test_a_file_for_another_python_is_passed_over(tmp_path):
    (tmp_path / "template.py").write_text(
        '"""A docstring that is long enough to be taken."""\ndef ('
    )
    (tmp_path / "escape.py").write_text('"""A docstring with an escape \\d that is not one."""\n')

    assert list(docstrings._docstrings(tmp_path / "template.py")) == []
    assert len(list(docstrings._docstrings(tmp_path / "escape.py"))) == 1
