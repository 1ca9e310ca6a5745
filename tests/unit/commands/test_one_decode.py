"""A webhook is decoded and encoded once on its way into the inbox: its envelope, its data and its free JSON are each
read where they are needed, and the entry is encoded once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from models.commands.payloads import Submission, parse_envelope, parse_flat
from models.queue.inbox import Outcome, make_entry, receipt_of
from relay.ingest.pusher import push_arguments
from relay.ingest.receipts import outcome_response
from relay.ingest.signed_bodies import IgnoredEvent, parse_signed
from tests.support.json_calls import json_calls

DATA: dict[str, Any] = {"type": "idea", "key": "roof", "content": {"text": "solar", "n": [1, 2.5]}, "tags": ["a"]}
ENVELOPE = msgspec.json.encode({"command": "store_memory", "session_id": "walk", "data": DATA})
FLAT = msgspec.json.encode({"session_id": "walk", **DATA})
BATCH = msgspec.json.encode(
    {"command": "batch", "session_id": "walk", "data": {"commands": [{"command": "store_memory", "data": DATA}] * 3}}
)

ITEM = [
    "decode in models.commands.strict_payloads._read_command",
    "decode in models.commands.strict_payloads._decode_free",
]
PUSHED = [
    "encode in models.commands.content_ids.canonical",  # For the hash.
    "encode in models.queue.inbox.make_entry",
    "encode in relay.ingest.pusher.push_arguments",  # Around it, and the receipt.
    "encode in relay.ingest.pusher.push_arguments",
]


def accept(found: Submission | IgnoredEvent) -> None:
    assert isinstance(found, Submission)
    entry = make_entry(found, source="chat", delivery_id="d", accepted_at=datetime.now(UTC), scopes=["write"])
    push_arguments(entry, receipt_of(entry))


def test_an_envelope_is_decoded_once() -> None:
    accept(parse_envelope(ENVELOPE))
    with json_calls() as calls:
        accept(parse_envelope(ENVELOPE))
    assert calls == ["decode in models.commands.strict_payloads.read_envelope", *ITEM, *PUSHED]


def test_a_signed_envelope_is_decoded_once() -> None:
    with json_calls() as calls:
        accept(parse_signed(ENVELOPE, event=""))
    assert calls == ["decode in models.commands.strict_payloads.read_envelope", *ITEM, *PUSHED]


def test_a_flat_command_is_decoded_once() -> None:
    with json_calls() as calls:
        accept(parse_flat("store_memory", FLAT))
    assert [call for call in calls if "read_flat" not in call] == [*ITEM, *PUSHED]
    assert len(calls) <= len(ITEM + PUSHED) + 4  # The known fields are extracted, and the rest is encoded again.


def test_each_command_of_a_batch_is_decoded_once() -> None:
    with json_calls() as calls:
        accept(parse_envelope(BATCH))
    assert [call for call in calls if call in ITEM] == ITEM * 3
    assert len(calls) == 2 + 3 * (len(ITEM) + 1) + len(PUSHED)


@pytest.mark.parametrize("is_flat", [False, True])
def test_a_response_is_passed_on_unchanged(is_flat: bool) -> None:
    body = b'{"status": "success",  "data": {}}'
    with json_calls() as calls:
        response = outcome_response(Outcome(status=200, body=Raw(body)), is_flat=is_flat)
    assert (bytes(response.body), calls) == (body, [])
