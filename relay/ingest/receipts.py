"""Responses to a sender: the receipt of its webhook, or the outcome of its command."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

import msgspec
from starlette.responses import Response

from models.access.scopes import allows
from models.commands.definitions import ReadCommand, Search
from models.delivery_conflict import delivery_conflict
from models.errors import OUT_OF_TIME_CODES
from models.queue.inbox import Entry, Outcome
from models.routes import template_of
from relay.http.responses import JsonResponse
from relay.ingest.pusher import Pushed

PENDING = "Safely stored; it will take effect. Do not send it again; GET status_url for its outcome."
RETRY_AFTER_SECONDS = 5


class _Error(msgspec.Struct, frozen=True):
    code: str = ""


class _Failure(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class _Hits(msgspec.Struct, frozen=True):
    meaning_ready: bool = True


class _Found(msgspec.Struct, frozen=True):
    data: _Hits = _Hits()


_DELIVERY_URL = template_of("read_delivery").removesuffix("{delivery_id}")


def receipt_response(entry: Entry, pushed: Pushed, *, status: Literal["accepted", "pending"]) -> Response:
    """Returns the response with the valid receipt. Raises Conflict if another command has the delivery id."""
    if pushed.verdict == "conflict":
        raise delivery_conflict(
            hint=f"Send it with a new id. GET {_status_url(entry)} shows the other command's outcome."
        )
    content = {
        "status": "ignored" if entry.ignored else status,
        "delivery_id": entry.delivery_id,
        "session_id": pushed.receipt.session_id,
        "command": pushed.receipt.command,
        "status_url": _status_url(entry),
        "duplicate": pushed.verdict == "duplicate",
    }
    if status == "pending":
        content["message"] = PENDING
    if entry.ignored:
        content["reason"] = entry.ignored
    return JsonResponse(content, 202)


def outcome_response(outcome: Outcome, *, is_flat: bool = False) -> Response:
    """Returns the response with an outcome, as the worker encoded it. For a flat command errors name the flat field."""
    body = bytes(outcome.body)
    if is_flat and outcome.status >= HTTPStatus.BAD_REQUEST:
        body = _with_flat_field(body)
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if outcome.status in (429, 503) else None
    return JsonResponse(body, outcome.status, headers)


def is_incomplete(outcome: Outcome, read: ReadCommand) -> bool:
    """Returns whether a worker gave a read less than it needs: it was cancelled, or not begun, because it would have
    delayed other senders; or a search used words alone, because the worker has not loaded the model of meanings."""
    if outcome.status >= HTTPStatus.BAD_REQUEST:
        return msgspec.json.decode(outcome.body, type=_Failure).error.code in OUT_OF_TIME_CODES
    return isinstance(read, Search) and not msgspec.json.decode(outcome.body, type=_Found).data.meaning_ready


def _with_flat_field(body: bytes) -> bytes:
    content = msgspec.json.decode(body)
    field = content["error"].get("field")
    if field is None or not field.startswith("data."):
        return body
    content["error"]["field"] = field.removeprefix("data.")
    return msgspec.json.encode(content)


def _status_url(entry: Entry) -> str:
    # A sender without `read` cannot follow the URL; a reader has another source and must name this one.
    url = _DELIVERY_URL + entry.delivery_id
    return url if allows(entry.scopes, "read") else f"{url}?source={entry.source}"
