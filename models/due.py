"""When memories are due: on a date (`2026-03-14`, the same day in every time zone) or at a time in UTC, as text.

As text in the order of its bytes, a date comes before the times of its day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from typing import NamedTuple

import msgspec
from msgspec import Raw

from models.errors import Invalid
from models.timestamps import format_utc, is_relative, parse_moment

NEVER = "~"
"""Sorts after all dates."""
DATE_LENGTH = len("2026-03-14")
_NO_TIME = datetime.min.replace(tzinfo=UTC)


class DueBound(NamedTuple):
    """A limit for dates, and for times."""

    day: str
    moment: str


def parse_due(text: str, *, field: str, now: datetime) -> str:
    """Parse a date, a time (in UTC unless it has an offset) or a delay such as `in 2h`. Raises Invalid."""
    if (day := _parse_day(text)) is not None:
        return day.isoformat()
    return _in_seconds(parse_moment(text, field=field, now=now, ahead=True))


def parse_due_bound(text: str, *, field: str, now: datetime, zone: tzinfo, end_of_day: bool = False) -> DueBound:
    """Parse a date, a time, or a delay such as `in 7d`. Raises Invalid.

    A date is a limit for the times of that day in `zone`, with `end_of_day` after all of them. A time is a limit for
    the date that it has in `zone`.
    """
    if (day := _parse_day(text)) is not None:
        text = day.isoformat()
    moment = parse_moment(text, field=field, now=now, zone=zone, end_of_day=end_of_day, ahead=True)
    try:
        return DueBound((day or moment.astimezone(zone).date()).isoformat(), _in_seconds(moment))
    except OverflowError as error:
        raise Invalid(f"Invalid time {text[:64]!r}.", field=field, expected="a year from 1 to 9999") from error


def is_due(due: str | None, after: DueBound | None, before: DueBound | None) -> bool:
    """Return whether it is due between the bounds: from a date or time on, and up to a date or before a time."""
    if due is None:
        return after is None and before is None
    if is_date(due):
        return (after is None or due >= after.day) and (before is None or due <= before.day)
    return (after is None or due >= after.moment) and (before is None or due < before.moment)


def is_date(due: str) -> bool:
    """Return whether it is a date, not a time."""
    return len(due) == DATE_LENGTH


def due_in(content: Raw) -> str | None:
    """Return the date or time in the field `due` of an object; None if it has none, or a relative one."""
    if b'"due"' not in bytes(content):
        return None
    try:
        value = msgspec.json.decode(content)
        due = value.get("due") if isinstance(value, dict) else None
        if not isinstance(due, str) or is_relative(due):
            return None
        return parse_due(due, field="due", now=_NO_TIME)
    except (Invalid, msgspec.DecodeError):
        return None


def _parse_day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _in_seconds(moment: datetime) -> str:
    return format_utc(moment.replace(microsecond=0))
