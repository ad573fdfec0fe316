from __future__ import annotations

import hashlib

import pytest

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.hashing import Span, num_cores, sha256, sha256_all


def test_spans_are_hashed_in_the_order_given(tmp_path):
    path = tmp_path / "x"
    data = bytes(range(256)) * 5000
    path.write_bytes(data)
    spans = [Span(path, 10, 10), Span(path), Span(path, 3, 1_000_000), Span(path, 1_000_000)]

    assert sha256_all(spans) == [
        hashlib.sha256(data[span.start : span.end]).hexdigest() for span in spans
    ]


def test_no_spans_give_no_digests():
    assert sha256_all([]) == []


def test_file_that_ends_before_the_span_is_truncated(tmp_path):
    (tmp_path / "x").write_bytes(b"123")

    with pytest.raises(IntegrityError, match="ends 2 bytes early") as caught:
        sha256(Span(tmp_path / "x", 0, 5))

    assert caught.value.code == "TRUNCATED"
    assert caught.value.path == "x"


def test_missing_file_is_a_source_error_with_its_path(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        sha256_all([Span(tmp_path / "nowhere")])


def test_cores_are_counted():
    assert num_cores() >= 1
