from __future__ import annotations

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.report import Problem, Report


def test_problem_keeps_all_that_the_error_says_without_repeating_the_code():
    error = IntegrityError("DIGEST_MISMATCH", "it differs", path="a.safetensors", tensor="w")

    problem = Problem.of(error)

    assert problem == Problem("DIGEST_MISMATCH", "it differs", "a.safetensors", "w")
    assert str(problem) == "DIGEST_MISMATCH: it differs"


def test_file_that_cannot_be_read_is_a_problem_too():
    assert Problem.of(SourceError("cannot read x")).code == "UNREADABLE"


def test_report_is_ok_without_problems_only():
    assert Report((), (), ()).ok
    assert not Report((Problem("LIMIT", "x"),), (), ()).ok


def test_report_is_written_as_json(pinned):
    report = Report((Problem("LIMIT", "x"),), ("a",), ("b",), pinned, 1, 2, 3)

    written = canonical.loads(canonical.dumps(report.to_json()))

    assert written["problems"] == [{"code": "LIMIT", "message": "x", "path": "", "tensor": ""}]
    assert written["digest"]["dirHash"] == pinned.digests.dir_hash
    assert (written["ok"], written["numFiles"], written["numBytes"]) == (False, 1, 3)
