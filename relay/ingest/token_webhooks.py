"""Webhooks with a token in the URL, for senders that cannot set headers: any JSON or form becomes a memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw
from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse, Response

from models.commands.content_ids import FINGERPRINT_LENGTH, make_slug
from models.commands.definitions import StoreMemory
from models.commands.payloads import Submission
from models.decoding.strict import decode_json
from relay.delivery_ids import ID_DIGITS, as_delivery_id, unquoted
from relay.http.bodies import without_mark
from relay.http.form_bodies import PAYLOAD, collect_fields, is_form, read_form
from relay.http.responses import JsonResponse

ID_HEADERS = ("Idempotency-Key", "webhook-id", "svix-id", "X-GitHub-Delivery")
"""Headers with a sender's delivery id, in the order of preference. They need no signature here: whoever knows a hook's
URL may post anything."""
KIND_FIELDS = ("type", "event", "action")
"""Fields in which senders commonly name the event."""
OWN_PARAMETERS = frozenset({"wait"})
"""Query parameters for the relay; all others belong to the event."""
VALIDATION = "validationToken"
"""The parameter with which Microsoft verifies a receiver of its events."""


class HookEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was posted to a hook."""

    content: bytes
    """The body as JSON; with query parameters, if there are any, as `{"query": …, "body": …}`."""
    value: Any
    """The decoded body."""
    sender_id: str | None = None
    """The sender's delivery id."""


def split_parameters(query: QueryParams) -> tuple[QueryParams, list[tuple[str, str]]]:
    """Returns the parameters for the relay, and those of the event."""
    items = query.multi_items()
    own = QueryParams([(name, value) for name, value in items if name in OWN_PARAMETERS])
    return own, [(name, value) for name, value in items if name not in OWN_PARAMETERS]


def read_event(body: bytes, *, headers: Headers, parameters: Sequence[tuple[str, str]] = ()) -> HookEvent:
    """Parses the event in a request. Raises NotJson or Invalid."""
    content = msgspec.json.encode(read_form(body)) if is_form(headers, body) else without_mark(body).strip()
    value = None
    if content or not parameters:
        value = decode_json(content, unique_keys=False)
    if parameters:
        query = msgspec.json.encode(collect_fields(parameters))
        content = b'{"query":%b%b}' % (query, content and b',"body":%b' % content)
        decode_json(content, unique_keys=False)
    return HookEvent(content=content, value=value, sender_id=_sender_id_of(headers))


def answer_handshake(event: HookEvent, parameters: Sequence[tuple[str, str]]) -> Response | None:
    """Returns the response to a sender that verifies its receiver (Slack, Microsoft), or None."""
    value = event.value
    if isinstance(value, dict) and value.get("type") == "url_verification" and isinstance(value.get("challenge"), str):
        return JsonResponse({"challenge": value["challenge"]})
    if value is None and (tokens := [text for name, text in parameters if name == VALIDATION]):
        return PlainTextResponse(tokens[0], headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})
    return None


def parse_hook(event: HookEvent, *, session_id: str, name: str, at: datetime | None = None) -> Submission:
    """Returns the command that stores the event unchanged as a memory with its own key, tagged with the token's name.
    The sender's id identifies the delivery; without one its content does, within the minutes in which senders retry."""
    fingerprint = hashlib.sha256(b"%b\n%b" % (session_id.encode(), event.content)).hexdigest()
    of_this = hashlib.sha256(f"{event.sender_id or ''}\n{fingerprint}".encode()).hexdigest()[:FINGERPRINT_LENGTH]
    parts = (name, make_slug(_kind(event.value)), f"{at or datetime.now(UTC):%Y%m%dT%H%M%SZ}", of_this)
    return Submission(
        command=StoreMemory(
            content=Raw(event.content), type="note", key="-".join(part for part in parts if part), tags=[name]
        ),
        session_id=session_id,
        delivery_id=event.sender_id or f"hook-{fingerprint[:ID_DIGITS]}",
        sync=False,
        by_content=event.sender_id is None,
        fingerprint=fingerprint,
    )


def _sender_id_of(headers: Headers) -> str | None:
    given = (unquoted(headers.get(name, "").strip()) for name in ID_HEADERS)
    return next((as_delivery_id(text) for text in given if text), None)


def _kind(value: Any) -> str:
    """Returns the event's name from the usual fields; other fields could hold secrets."""
    if not isinstance(value, dict):
        return ""
    said = (part.get(field) for part in (value, value.get(PAYLOAD)) if isinstance(part, dict) for field in KIND_FIELDS)
    return next((text for text in said if isinstance(text, str)), "")
