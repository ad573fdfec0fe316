from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from reuselib.errors import IntegrityError
from reuselib.lineage.details import Details
from reuselib.lineage.reading import Fields


def reread(written: dict) -> Details:
    return Details.parse(Fields({"runDetails": written}, "", ("runDetails",), ""))


def test_details_are_read_back(draft):
    assert reread(draft.details.to_json()) == draft.details


def test_empty_details_hold_the_builder_only():
    assert list(Details().to_json()) == ["builder"]
    assert reread(Details().to_json()) == Details()


def test_times_are_written_in_utc_to_the_second():
    zone = timezone(timedelta(hours=2))
    details = Details(started=datetime(2026, 1, 31, 12, 0, 0, 999, tzinfo=zone))

    written = details.to_json()

    assert written["metadata"] == {"startedOn": "2026-01-31T10:00:00Z"}
    assert reread(written).started == datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2026-01-31", "2026-01-31T10:00:00+00:00", "now", "2026-13-01T00:00:00Z"]
)
def test_other_times_are_refused(text):
    written = {**Details().to_json(), "metadata": {"startedOn": text}}

    with pytest.raises(IntegrityError, match="is not a time such as"):
        reread(written)


def test_other_builder_is_refused():
    with pytest.raises(IntegrityError, match="WRONG_TYPE"):
        reread({"builder": {"id": "https://elsewhere"}})
