"""Signed bodies: which ones are commands, valid or invalid, and which are only recorded."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.commands.definitions import StoreMemory
from models.commands.payloads import Submission, parse_envelope
from models.commands.strict_payloads import ENVELOPE_TYPE
from models.errors import Invalid, NotJson
from relay.ingest.signed_bodies import IgnoredEvent, parse_signed

NO_COMMAND_INSIDE = "The client_payload of the repository_dispatch is not a command."
ENVELOPE = {"command": "store_memory", "session_id": "s", "data": {"content": 1}}


def parse(value: Any, event: str = "") -> Submission | IgnoredEvent:
    return parse_signed(msgspec.json.encode(value), event=event)


def reason(value: Any, event: str = "") -> str:
    parsed = parse(value, event)
    assert isinstance(parsed, IgnoredEvent)
    return parsed.reason


@pytest.mark.parametrize("event", ["", "push", "repository_dispatch"])
@pytest.mark.parametrize("envelope", [ENVELOPE, ENVELOPE | {"type": ENVELOPE_TYPE}])
def test_a_command_is_recognized_whoever_signed_it(envelope: dict[str, Any], event: str) -> None:
    assert parse(envelope, event) == parse_envelope(msgspec.json.encode(envelope))


def test_a_command_in_a_repository_dispatch_is_extracted_verbatim() -> None:
    body = b'{"action":"x","client_payload":{"command":"store_memory","session_id":"s","data":{"content":1.50}}}'
    parsed = parse_signed(body, event="repository_dispatch")
    assert isinstance(parsed, Submission)
    assert isinstance(parsed.command, StoreMemory)
    assert bytes(parsed.command.content) == b"1.50"


@pytest.mark.parametrize(
    ("value", "event", "says"),
    [
        ({"type": "user.created", "data": {}}, "", "Its type is not collaborative_session_command."),
        ({"type": "user.created", "command": "store_memory"}, "", "Its type is not collaborative_session_command."),
        ({"type": None}, "", "Its type is not collaborative_session_command."),
        ({}, "", "It has no command."),
        ({"data": ENVELOPE}, "", "It has no command."),
        ([ENVELOPE], "", "It has no command."),
        ("store_memory", "", "It has no command."),
        (None, "", "It has no command."),
        ({"zen": "Design for failure."}, "ping", "The GitHub event ping is not a command."),
        ({"client_payload": ENVELOPE}, "push", "The GitHub event push is not a command."),
        ({"client_payload": ENVELOPE}, "", "It has no command."),
        (
            {"client_payload": {"a": 1}},
            "repository_dispatch",
            NO_COMMAND_INSIDE,
        ),
        (
            {"client_payload": None},
            "repository_dispatch",
            NO_COMMAND_INSIDE,
        ),
        ([], "repository_dispatch", NO_COMMAND_INSIDE),
    ],
)
def test_other_events_are_recorded_with_the_reason(value: Any, event: str, says: str) -> None:
    assert reason(value, event) == says


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"command": "store_memroy", "session_id": "s"}, "command"),
        ({"command": 5}, "command"),
        ({"command": "store_memory", "session_id": "s", "data": {"contnet": 1}}, "data.contnet"),
        ({"type": ENVELOPE_TYPE, "comand": "store_memory"}, "comand"),
        ({"client_payload": {"command": "store_memory", "data": {"content": 1}}}, "session_id"),
    ],
)
def test_an_invalid_command_is_refused(value: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(value, "repository_dispatch")
    assert caught.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"payload=%7B%7D", b"\xff", b"{}{}"])
def test_invalid_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson):
        parse_signed(body, event="push")


def test_a_reformatted_event_is_the_same() -> None:
    one, other = (parse_signed(body, event="") for body in (b'{"a":1,"b":[2]}', b'{ "b": [2], "a": 1 }'))
    assert one == other
    assert one != parse({"a": 1, "b": [3]})
    assert parse({}, "push").hash == parse({}, "ping").hash


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(value=st.dictionaries(st.sampled_from(["type", "command", "session_id", "client_payload", "data"]), JSON))
def test_any_json_is_a_command_or_ignored_or_refused(value: dict[str, Any]) -> None:
    try:
        parsed = parse(value, "repository_dispatch")
    except Invalid:
        return
    assert len(parsed.hash) == 64
