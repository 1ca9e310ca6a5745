"""When memories are due: dates are the same day everywhere, times are compared as instants."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from msgspec import Raw

from models.due import due_in, is_due, parse_due, parse_due_bound
from models.errors import Invalid

NOW = datetime(2026, 3, 10, 9, 30, 15, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("2026-03-14", "2026-03-14"),
        ("20260314", "2026-03-14"),
        ("2026-03-14T12:00", "2026-03-14T12:00:00Z"),
        ("2026-03-14T12:00:00.5+01:00", "2026-03-14T11:00:00Z"),
        ("in 2h", "2026-03-10T11:30:15Z"),
        ("in 3 days", "2026-03-13T09:30:15Z"),
    ],
)
def test_a_date_stays_a_date_and_a_time_is_in_utc(text: str, due: str) -> None:
    assert parse_due(text, field="due", now=NOW) == due
    assert parse_due(due, field="due", now=NOW) == due


@pytest.mark.parametrize("text", ["", "Friday", "2026-02-30", "2026-3-4", "3d", "2 hours ago", "2026-03-14T25:00", "٢"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_due(text, field="due", now=NOW)
    assert refused.value.field == "due"


@pytest.mark.parametrize(("zone", "is_before"), [("UTC", False), ("America/New_York", False), ("Asia/Tokyo", True)])
def test_a_day_has_the_times_that_it_has_in_the_zone(zone: str, is_before: bool) -> None:
    start = parse_due_bound("2026-03-14", field="due_after", now=NOW, zone=ZoneInfo(zone))
    end = parse_due_bound("2026-03-14", field="due_before", now=NOW, zone=ZoneInfo(zone), end_of_day=True)
    assert is_due("2026-03-14", start, end)
    assert is_due("2026-03-13T15:30:00Z", start, end) is is_before
    assert not is_due("2026-03-13", start, None)
    assert not is_due("2026-03-15", None, end)
    assert not is_due(None, None, end)
    assert is_due(None, None, None)


def test_a_time_as_a_limit_includes_its_day() -> None:
    noon = parse_due_bound("2026-03-14T12:00", field="due_before", now=NOW, zone=UTC)
    assert [is_due(due, None, noon) for due in ("2026-03-14", "2026-03-14T11:59:59Z", "2026-03-14T12:00:00Z")] == [
        *(True, True, False)
    ]
    assert [is_due(due, noon, None) for due in ("2026-03-14", "2026-03-14T11:59:59Z", "2026-03-14T12:00:00Z")] == [
        *(True, False, True)
    ]


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_limit_at_the_end_of_the_calendar_is_refused_or_accepted_but_no_bug(text: str) -> None:
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        try:
            assert parse_due_bound(text, field="due_after", now=NOW, zone=ZoneInfo(zone)).moment == text
        except Invalid as error:
            assert error.field == "due_after"


@pytest.mark.parametrize(
    ("content", "due"),
    [
        ('{"what": "Call", "due": "2026-03-14"}', "2026-03-14"),
        ('{"due": "2026-03-14T12:00+01:00"}', "2026-03-14T11:00:00Z"),
        ('{"due": "Friday"}', None),
        ('{"due": "in 3d"}', None),
        ('{"due": null}', None),
        ('{"due": 20260314}', None),
        ('{"x": {"due": "2026-03-14"}}', None),
        ('["due", "2026-03-14"]', None),
        ('"due"', None),
        ('{"due": "2026-03-14", "x": "\\ud83d"}', None),
        ("1", None),
    ],
)
def test_only_an_absolute_date_or_time_in_an_object_counts(content: str, due: str | None) -> None:
    assert due_in(Raw(content.encode())) == due
