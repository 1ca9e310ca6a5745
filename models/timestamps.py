"""Parses times (ISO 8601, dates, ages such as `7d`, delays such as `in 2h`) and formats them in UTC with `Z`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from models.errors import Invalid

_SPAN = re.compile(
    r"(?P<ahead>in )?(?P<count>[0-9]{1,5}) ?(?P<unit>m(in(ute)?s?)?|h(ours?)?|d(ays?)?|w(eeks?)?)(?P<ago> ago)?"
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
EXPECTED_MOMENT = "an ISO 8601 time, a date, or an age such as 30m, 12h, 7d, 2w"
EXPECTED_AHEAD = "an ISO 8601 time, a date, or a delay such as in 30m, in 12h, in 7d"


def parse_zone(name: str) -> tzinfo:
    """Return the time zone with an IANA name such as Europe/Berlin. Raises Invalid."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise Invalid(
            f"Unknown time zone {name[:64]!r}.", field="timezone", expected="an IANA name, e.g. Europe/Berlin"
        ) from error


def is_relative(text: str) -> bool:
    """Return whether the text is an age or a delay, whose time depends on when it is parsed."""
    return _SPAN.fullmatch(text) is not None


def parse_moment(
    text: str, *, field: str, now: datetime, zone: tzinfo = UTC, end_of_day: bool = False, ahead: bool = False
) -> datetime:
    """Parse a time, a date, an age such as `2h`, or with `ahead` a delay such as `in 2h`. Raises Invalid.

    Times without an offset are in `zone`. A date is the start of its day, or with `end_of_day` the start of the next,
    so that `until` includes the day.
    """
    expected = EXPECTED_AHEAD if ahead else EXPECTED_MOMENT
    if match := _SPAN.fullmatch(text):
        span = f"{match['count']}{match['unit'][0]}"
        if match["ago"] and match["ahead"]:
            raise Invalid(f"Invalid time {text!r}.", field=field, expected=expected)
        if ahead != bool(match["ahead"]):
            kind, other = ("an age", "in the future") if ahead else ("a delay", "in the past")
            raise Invalid(
                f"{text!r} is {kind}, but {field} must be {other}.",
                field=field,
                expected=expected,
                hint=f'For {span} from now write "in {span}".' if ahead else f'For {span} ago write "{span}".',
            )
        step = timedelta(**{_UNITS[span[-1]]: int(match["count"])})
        return now + step if ahead else now - step
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            day = datetime.combine(date.fromisoformat(text), time(), zone)
            return (day + timedelta(days=1) if end_of_day else day).astimezone(UTC)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"Invalid time {text[:64]!r}.", field=field, expected=expected) from error


def format_utc(moment: datetime) -> str:
    """Format as ISO 8601 in UTC with `Z`, with microseconds unless they are zero."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
