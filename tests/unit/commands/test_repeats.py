"""Telling a batch that is sent again without an id from one with the same content sent later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from models.commands.content_ids import REPEAT_SECONDS
from models.commands.payloads import decode_command, parse_envelope
from models.queue.inbox import DeadLetterResolution, Entry, make_entry
from sessions.commands.repeated_batches import answer_again, is_repeat, may_repeat
from sessions.rules.event_log import Said

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
BATCH = {"commands": [{"command": "pause_session"}]}
FIRST = Said(source="phone", hash="", at=NOW, response=Raw(b"{}"))


def entry(command: str = "conversation_chunk", /, data: dict[str, Any] | None = None, **origin: Any) -> Entry:
    body = {"command": command, "session_id": "walk", "data": data or {"content": "Yes."}}
    given: dict[str, Any] = {
        "source": "phone",
        "delivery_id": "d",
        "accepted_at": NOW,
        "scopes": ["admin"],
        "is_unnamed": True,
    }
    return make_entry(parse_envelope(msgspec.json.encode(body)), **given | origin)


@pytest.mark.parametrize(
    ("seconds", "source", "text", "repeats"),
    [
        (0, "phone", "Yes.", True),
        (REPEAT_SECONDS - 1, "phone", "Yes.", True),
        (1 - REPEAT_SECONDS, "phone", "Yes.", True),  # The clocks of two relays may differ.
        (REPEAT_SECONDS, "phone", "Yes.", False),
        (1, "laptop", "Yes.", False),
        (1, "phone", "yes.", False),
    ],
)
def test_a_repeat_has_the_same_content_from_the_same_source_in_time(
    seconds: int, source: str, text: str, repeats: bool
) -> None:
    said = msgspec.structs.replace(FIRST, hash=entry().hash)
    again = entry(data={"content": text}, source=source, accepted_at=NOW + timedelta(seconds=seconds))
    assert is_repeat(again, said) is repeats
    assert not is_repeat(again, None)


@pytest.mark.parametrize(
    ("sent", "repeats"),
    [
        (entry("batch", BATCH), True),
        (entry(), False),
        (entry("batch", {"commands": [*BATCH["commands"], {"command": "list_memories"}]}), False),
        (entry("batch", BATCH, is_unnamed=False), False),
        (entry("batch", BATCH, resolution=DeadLetterResolution(by="operator", at=NOW)), False),
    ],
)
def test_only_batches_without_an_id_are_recognized_by_their_whole_content(sent: Entry, repeats: bool) -> None:
    assert may_repeat(sent, decode_command(sent.command, sent.data)) is repeats


def test_the_response_to_a_repeat_is_the_first_one_and_says_so() -> None:
    results = [{"data": {"key": "k", "created": True, "outcome": "reopened"}}, {"status": "error"}]
    body = {"message": "Executed all " + "x" * 320, "data": {"results": results, "processed": 1}}
    again = answer_again(msgspec.structs.replace(FIRST, response=Raw(msgspec.json.encode(body))))
    assert again.data == {
        "results": [{"data": {"key": "k", "created": False}}, {"status": "error"}],
        "processed": 1,
    }
    assert again.message.startswith(
        "Recognized as a repeat of the batch just sent and not executed again: Executed all"
    )
    assert len(again.message) == 200


@pytest.mark.parametrize(
    ("body", "is_named"),
    [
        ({"command": "create_session", "data": {"title": "Walk"}}, True),
        ({"command": "create_session", "session_id": "walk", "data": {"title": "Walk"}}, False),
        ({"command": "create_session", "data": {"title": "Walk", "session_id": "walk"}}, False),
        ({"command": "batch", "data": {"commands": [{"command": "create_session", "data": {"title": "Walk"}}]}}, True),
        ({"command": "batch", "data": {"commands": [{"command": "pause_session", "session_id": "walk"}]}}, False),
        ({"command": "store_memory", "session_id": "walk", "data": {"content": 1}}, False),
        ({"command": "list_sessions"}, False),
    ],
)
def test_only_a_title_may_refer_to_a_session_with_another_id(body: dict[str, Any], is_named: bool) -> None:
    assert parse_envelope(msgspec.json.encode(body)).names_session is is_named
