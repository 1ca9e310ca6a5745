"""Extreme values that a sender can write: times, cursors, queries, numbers, time zones."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

TIMES = (
    "0001-01-01",
    "9999-12-31",
    "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00-23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "9999-12-31T23:59:59.999999+23:59",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59Z",
    "2026-01-01T00:00:00+15:59:59.999999",
    "99999w",
    "٩٩٩٩٩w",
    "999999999999d",
    "-1d",
    "7d\n",
    "infinity",
    "-infinity",
    "now",
    "epoch",
    "today",
    "0000-00-00",
    "2026-02-30",
    "2026-W53-7",
    "1e309",
    "\u2028",
)
ZONES = (
    "../../etc/passwd",
    "/etc/localtime",
    "localtime",
    "Europe",
    "Europe/Berlin/",
    "zone.tab",
    "posixrules",
    "right/UTC",
    "Asia/Kathmandu",
    "Etc/GMT-14",
    ".",
    "..",
    "a..b",
    "C:\\Windows",
    "x" * 64,
    "ÄÖ/Ü",
    "UTC; DROP TABLE sessions",
)
QUERIES = (
    "-" * 33,
    "- " * 500,
    "-" * 1_000,
    '-"' * 500,
    '-""' * 333,
    "-(" * 500,
    "-!" * 500,
    "-:" * 500,
    "-'" * 500,
    "-\\" * 500,
    "-\t-\n-\u00a0-\u3000" * 100,
    "a " + "--" * 400 + " b",
    "a -b " * 200,
    "a or -b " * 125,
    "or " * 333,
    '"' * 1_000,
    '"a" ' * 250,
    '"' + "a " * 499,
    ":*" * 500,
    "a:* & !b | (c <-> d)" * 40,
    "\\" * 1_000,
    "'" * 1_000,
    "'\\' " * 250,
    "the of and " * 90,
    "-the -of",
    "<" * 1_000,
    "<->" * 333,
    "%_" * 500,
    "\x01\x7f\x85\u2028\ufeff\ufffe\uffff",
    "\u0301" * 1_000,
    "a\u200d" * 500,
    "\U00017000" * 1_000,
    "\U00012000 " * 500,
    "፩" * 1_000,
    "İ" * 1_000,
    "ß" * 1_000,
    "ﷺ" * 1_000,
    "漢" * 1_000,
    "漢 -字" * 250,
    "-漢" * 500,
    "ไทย" * 333,
    "מִלָּה" * 160,
    "😀" * 1_000,
    "http://a.b/c?d=e&f#g " * 45,
    "a-b-c-d" * 140,
    "1e999 -0x7fffffff 99999999999999999999999999",
    "a@b.c/d/../e.f " * 60,
)
_ANY: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    2**63,
    10**400,
    1.5,
    1e308,
    "",
    "x",
    "\0",
    "a\0b",
    "x" * 900,
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "2026-01-01T00:00:00",
    "2026-01-01T00:00:00+16:00",
    "infinity",
    "all",
    "partial",
    [],
    {},
)
_RAW = (
    b"",
    b"\xff\xfe",
    b"NaN",
    b"Infinity",
    b"-0",
    b"1e999",
    rb'["\ud800"]',
    rb'["2026-01-01T00:00:00Z","\ud800","\ud800"]',
    b'["2026-01-01T00:00:00Z","\xed\xa0\x80"]',
    b'"2026-01-01T00:00:00Z"',
    b"[" * 700,
    b"9" * 1_400,
)


def make_cursor(value: Any) -> str:
    """Return a cursor in the relay's encoding."""
    text = value if isinstance(value, bytes) else _encode(value)
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _encode(value: Any) -> bytes:
    # msgspec cannot encode integers beyond 64 bits.
    if isinstance(value, list):
        return b"[" + b",".join(map(_encode, value)) + b"]"
    return str(value).encode() if type(value) is int else msgspec.json.encode(value)


CURSORS: tuple[str, ...] = (
    *(make_cursor(raw) for raw in _RAW),
    *(make_cursor(value) for value in _ANY),
    *(make_cursor([value]) for value in _ANY),
    *(make_cursor([first, second]) for first in _ANY for second in ("s", "\0")),
    *(make_cursor([first, "s", "k"]) for first in _ANY),
    *(make_cursor([0, priority, None]) for priority in _ANY),
    *(make_cursor([0, None, finished_at]) for finished_at in _ANY),
    *(make_cursor([0, "s", priority, None]) for priority in _ANY),
    *(make_cursor([0, "s", None, finished_at]) for finished_at in _ANY),
    *(make_cursor([match, offset]) for match in ("all", "partial") for offset in _ANY),
    "=",
    "====",
    "!",
    "é",
    "-_-_",
    "a" * 2_000,
    "0001-01-01T00:00:00+23:59",
    "9223372036854775807",
)
"""Forged cursors, including all past and present shapes."""

LISTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("list_sessions", {}),
    ("query_memories", {}),
    ("list_tasks", {}),
    ("list_artifacts", {}),
    ("search", {"q": "a"}),
)
PERIODS = LISTS[1:]


def lists(session_id: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Yield reads of lists with extreme values: command, session and data."""
    asked: list[tuple[str, str | None, dict[str, Any]]] = []
    for command, data in (*LISTS, ("list_memories", {})):
        inside = None if command == "list_sessions" else session_id
        asked += [(command, inside, {**data, "cursor": cursor}) for cursor in CURSORS]
        asked += [(command, inside, {**data, "limit": limit}) for limit in (-1, 0, 1, 500, 501, 2**63, 2**64)]
        asked += [(command, inside, {**data, "max_characters": size}) for size in (-1, 0, 200, 90_000, 90_001, 2**64)]
    for command, data in PERIODS:
        asked += [(command, None, {**data, "since": time, "until": time}) for time in TIMES]
        for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
            asked += [(command, None, {**data, "since": time, "timezone": zone}) for time in TIMES if len(time) < 20]
            asked += [(command, None, {**data, "until": time, "timezone": zone}) for time in TIMES if len(time) < 20]
        asked += [(command, None, {**data, "since": "2026-01-01T00:00:00", "timezone": zone}) for zone in ZONES]
        asked += (
            [(command, None, {**data, "tags": ["\uffff" * 256]})] if command in ("query_memories", "search") else []
        )
    due = [{"due_after": time, "due_before": time, "timezone": "Pacific/Kiritimati"} for time in TIMES]
    asked += [("query_memories", None, period) for period in due]
    asked += [("search", None, {"q": query}) for query in QUERIES]
    return asked


def known_faults() -> list[tuple[str, str | None, dict[str, Any]]]:
    """Yield reads of lists that once failed."""
    cursor = make_cursor(["0001-01-01T00:00:00+23:59", "s"])
    return [("list_sessions", None, {"cursor": cursor}), ("search", None, {"q": "-" * 33})]


def reads(session_id: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Yield reads of single records with extreme values."""
    offsets = (-1, 0, 1, 10**9, 10**9 + 1, 2**31, 2**63, 2**64)
    names = ("x", "\uffff", "\U0010ffff" * 256, "../../etc/passwd", "%", "_", "'", "\\", '"', "-" * 256)
    return [
        *(("retrieve_memory", session_id, {"key": name}) for name in names),
        *(("retrieve_memory", session_id, {"key": "k", "offset": offset}) for offset in offsets),
        *(("retrieve_memory", session_id, {"key": "k", "revision": number}) for number in offsets),
        *(("get_task", session_id, {"task_id": "t", "offset": offset}) for offset in offsets),
        *(("get_task", session_id, {"task_id": "t", "wait": wait}) for wait in (-1, 1e308, 41, 2**64)),
        *(("get_artifact", session_id, {"artifact_id": "a", "offset": offset}) for offset in offsets),
        *(("resume_bundle", session_id, {"max_characters": size}) for size in (-1, 0, 200, 90_000, 2**64)),
        *(("get_session_summary", session_id, {"max_characters": size}) for size in (199, 200, 90_000)),
    ]


def writes(session_id: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Yield changes with extreme values."""
    hostile = ["\uffff" * 256, "\U0010ffff" * 256]
    return [
        *(("conversation_chunk", session_id, {"content": "x", "start_time": time}) for time in TIMES),
        *(("conversation_chunk", session_id, {"content": "x", "end_time": time}) for time in TIMES),
        *(("delegate_task", session_id, {"description": "x", "not_before": time}) for time in TIMES),
        *(("store_memory", session_id, {"content": {"due": time}, "due": time}) for time in TIMES),
        *(("store_memory", session_id, {"content": {"due": time}}) for time in TIMES),
        *(("store_memory", session_id, {"content": query, "tags": hostile}) for query in QUERIES),
        *(("store_memory", session_id, {"content": query, "key": query[:256]}) for query in QUERIES),
        ("store_memory", session_id, {"content": distinct_words()}),
        ("conversation_chunk", session_id, {"content": distinct_words()}),
        ("add_artifact", session_id, {"name": "x" * 256, "content": distinct_words()}),
        ("create_session", None, {"title": "\U0010ffff" * 256, "participants": hostile, "context": "\uffff" * 1_000}),
    ]


def distinct_words() -> str:
    """Return so many long words with distinct stems that no search index can hold them."""
    letters = [chr(0x17000 + number) for number in range(300)]
    return " ".join(f"a{first}{second * 7}s" for first in letters for second in letters)[:200_000]
