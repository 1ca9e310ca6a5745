"""The format of data in Redis is the same in this version and the previous one, so that relays and workers can be
upgraded in any order, even with waiting entries and outcomes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from msgspec import Raw

from models.commands.payloads import parse_envelope
from models.queue.inbox import Entry, Outcome, OutcomeMessage, decode_outcome, decode_receipt, make_entry, seen_value
from sessions.commands.store import Store
from sessions.rules.event_log import ApplyResult
from worker.outcomes import encode_outcomes

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HASH = "4137898f47e598fa9094e30259983fe712c583a920d033717f2c4db38ad3af93"
SENT = b"""{"type": "collaborative_session_command", "command": "store_memory", "session_id": "walk",
 "data": {"tags": ["b", "a"], "type": "idea", "key": "k", "content": {"text": "h\\u00e9llo: x", "n": 1.50}}}"""
ENTRY = (
    b'{"source":"chat","delivery_id":"d1","hash":"%b","command":"store_memory","session_id":"walk","data":{"content":'
    b'{"text": "h\\u00e9llo: x", "n": 1.50},"type":"idea","key":"k","tags":["b","a"]},"accepted_at":'
    b'"2026-03-01T12:00:00Z","scopes":["write"],"waits":true}' % HASH.encode()
)
OUTCOME = b'{"status":200,"body":{"status":"success"},"accepted_at":"2026-03-01T12:00:00Z"}'
KEY = f"sr:outcome:chat:d1:{HASH[:16]}"
ANNOUNCEMENT = b'{"key":"%b","outcome":%b}' % (KEY.encode(), OUTCOME)
SEEN = HASH.encode() + b'{"command":"store_memory","session_id":"walk","accepted_at":"2026-03-01T12:00:00Z"}'


def sent() -> Entry:
    origin: dict[str, Any] = {"source": "chat", "delivery_id": "d1", "accepted_at": AT, "scopes": ["write"]}
    return make_entry(parse_envelope(SENT), **origin, waits=True)


def test_an_entry_is_written_as_before() -> None:
    assert msgspec.json.encode(sent()) == ENTRY


def test_an_entry_of_the_previous_version_is_read() -> None:
    read = msgspec.json.decode(ENTRY, type=Entry)
    assert read == sent()
    assert bytes(read.data).startswith(b'{"content":{"text": "h')


def test_a_dedup_key_is_written_and_read_as_before() -> None:
    assert seen_value(sent()) == SEEN
    assert decode_receipt(SEEN).accepted_at == AT


@pytest.mark.parametrize("kept", [OUTCOME, b"379 sr:held:chat:1\n" + OUTCOME])
def test_an_outcome_of_the_previous_version_is_read(kept: bytes) -> None:
    outcome = decode_outcome(kept)
    assert (outcome.status, bytes(outcome.body), outcome.accepted_at) == (200, b'{"status":"success"}', AT)


def test_an_outcome_and_its_announcement_are_written_as_before() -> None:
    applied = ApplyResult(entry=sent(), status="applied", http_status=200, response=Raw(b'{"status":"success"}'))
    (encoded,) = encode_outcomes(cast(Store, _NoTasks()), [applied])
    assert (encoded.key, encoded.outcome) == (KEY, OUTCOME)
    assert encoded.kept == encoded.refused == ANNOUNCEMENT
    assert msgspec.json.decode(ANNOUNCEMENT, type=OutcomeMessage).outcome == Outcome(
        status=200, body=Raw(b'{"status":"success"}'), accepted_at=AT
    )


class _NoTasks:
    """A store without tasks."""

    def updates(self, *_: object) -> dict[Any, Any]:
        return {}
