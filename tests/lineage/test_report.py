from __future__ import annotations

import pytest

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.report import Problem, Report


def test_problem_keeps_all_that_the_error_says_without_repeating_the_code():
    error = IntegrityError("DIGEST_MISMATCH", "it differs", path="a.safetensors", tensor="w")

    problem = Problem.of(error)

    assert problem == Problem("DIGEST_MISMATCH", "it differs", "a.safetensors", "w")
    assert str(problem) == "DIGEST_MISMATCH: it differs"


def test_file_that_cannot_be_read_is_a_problem_too():
    problem = Problem.of(SourceError("cannot read x", expected="a file", fix="look at it"))

    assert vars(problem) == vars(Problem("UNREADABLE", "cannot read x", fix="look at it"))


def test_refusal_is_the_first_problem_and_counts_the_others():
    report = Report((Problem("LIMIT", "x is large", "x"), Problem("STALE", "y")), (), ())

    error = report.refusal("m is not loaded", fix="get it again")

    assert (error.code, error.path, error.fix) == ("LIMIT", "x", "get it again")
    assert error.what == "LIMIT: m is not loaded: x is large (and 1 more)"


@pytest.mark.parametrize(
    ("codes", "as_recorded", "unreadable"),
    [
        (["UNSIGNED"], True, False),
        (["STALE", "UNTRUSTED_SIGNER"], True, False),
        (["UNSIGNED", "DIGEST_MISMATCH"], False, False),
        (["UNREADABLE"], False, True),
        (["UNREADABLE", "DIGEST_MISMATCH"], False, False),
    ],
)
def test_what_is_wrong_is_told_by_kind(codes, as_recorded, unreadable):
    report = Report(tuple(Problem(code, code) for code in codes), (), ())

    assert (report.is_bytes_as_recorded, report.is_unreadable) == (as_recorded, unreadable)


def test_report_is_ok_without_problems_only():
    assert Report((), (), ()).ok
    assert not Report((Problem("LIMIT", "x"),), (), ()).ok


def test_report_is_written_as_json(pinned):
    report = Report((Problem("LIMIT", "x"),), ("a",), ("b",), pinned, 1, 2, 3)

    written = canonical.loads(canonical.dumps(report.to_json()))

    assert written["problems"] == [
        {"code": "LIMIT", "message": "x", "path": "", "tensor": "", "fix": ""}
    ]
    assert written["digest"]["dirHash"] == pinned.digests.dir_hash
    assert (written["ok"], written["numFiles"], written["numBytes"]) == (False, 1, 3)
