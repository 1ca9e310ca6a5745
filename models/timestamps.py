"""Times as text: UTC with `Z` outwards; ISO, dates and ages such as `7d` inwards."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from models.errors import Invalid

_AGE = re.compile(r"^(\d{1,5})([mhdw])$")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
EXPECTED_MOMENT = "an ISO 8601 time, a date, or an age such as 30m, 12h, 7d, 2w"


def parse_zone(name: str) -> tzinfo:
    """The time zone of an IANA name such as Europe/Berlin. Raises Invalid."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise Invalid(
            f"{name[:64]!r} is no known time zone.", field="timezone", expected="an IANA name, e.g. Europe/Berlin"
        ) from error


def parse_moment(text: str, *, field: str, now: datetime, zone: tzinfo = UTC, end_of_day: bool = False) -> datetime:
    """The moment that `text` names. A time without offset is read in `zone`; a bare date is the start of its day,
    or with `end_of_day` the start of the next, so that `until` includes the day. Raises Invalid."""
    if match := _AGE.match(text):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            day = datetime.combine(date.fromisoformat(text), time(), zone)
            return (day + timedelta(days=1) if end_of_day else day).astimezone(UTC)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{text[:64]!r} is no time.", field=field, expected=EXPECTED_MOMENT) from error


def format_utc(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`, to the microsecond where it has any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
