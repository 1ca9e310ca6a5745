"""Error responses of each kind of operation for the OpenAPI document, from one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from api.openapi.schemas import COMPONENT
from relay.delivery_ids import HEADER as IDEMPOTENCY_KEY

Json = dict[str, Any]

ANY = frozenset({400, 408, 503})
"""Statuses for invalid HTTP, slow requests and too many connections, whatever the path."""
OPEN = ANY | {403}
"""ALLOWED_IPS applies to operations without a key, too."""
KEYED = OPEN | {401, 429}
BODY = frozenset({413, 415, 422})
COMMAND = KEYED | BODY | {404, 409, 500}

RATE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_SECONDS_OR_COUNT: Json = {"type": "integer", "minimum": 0}
HEADERS: Mapping[str, tuple[str, Json]] = {
    "Retry-After": ("Seconds to wait before retrying.", _SECONDS_OR_COUNT),
    "WWW-Authenticate": ("The authentication scheme to use.", {"type": "string"}),
    "RateLimit-Limit": ("Requests that the sender may make per period.", _SECONDS_OR_COUNT),
    "RateLimit-Remaining": ("Requests left in this period.", _SECONDS_OR_COUNT),
    "RateLimit-Reset": ("Seconds until the limit resets.", _SECONDS_OR_COUNT),
    IDEMPOTENCY_KEY: (
        "The delivery id to retry with, so that the command takes effect only once.",
        {"type": "string"},
    ),
}


class ErrorResponse(NamedTuple):
    """The meaning of an error status, with its required and optional headers."""

    meaning: str
    always: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = RATE_HEADERS


ERROR_RESPONSES: Mapping[int, ErrorResponse] = {
    400: ErrorResponse("Invalid HTTP, or a body that is not a JSON object or not encoded as declared."),
    401: ErrorResponse("A valid key or signature is required.", ("WWW-Authenticate",), ()),
    403: ErrorResponse("The key or the client's address does not permit this."),
    404: ErrorResponse("Nothing has this id or URL."),
    408: ErrorResponse("The request did not arrive in time."),
    409: ErrorResponse("The request conflicts with the stored state, or with an earlier one under this delivery id."),
    413: ErrorResponse("The body is too large."),
    415: ErrorResponse("The body is not JSON, or has an unsupported encoding."),
    422: ErrorResponse("The request does not match the schema or is invalid; `field` says where."),
    429: ErrorResponse("The sender exceeds a limit.", ("Retry-After",)),
    500: ErrorResponse(
        "Code `dead_letter`: the command is stored, but a fault in the relay prevents its effect until an operator "
        "replays it. Do not send it again."
    ),
    503: ErrorResponse("Temporarily unavailable; retry later.", ("Retry-After",), (*RATE_HEADERS, IDEMPOTENCY_KEY)),
}


def error_responses(statuses: Iterable[int]) -> Json:
    """References to the responses for these statuses."""
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in sorted(statuses)}


def answer(description: str, component: str | None, *more_types: str, is_open: bool = False) -> Json:
    """A successful response: JSON if a component is given, or text of one of `more_types`."""
    content: Json = {"application/json": {"schema": {"$ref": COMPONENT.format(name=component)}}} if component else {}
    content |= {media_type: {"schema": {"type": "string"}} for media_type in more_types}
    headers = {} if is_open else {"headers": _headers((), RATE_HEADERS)}
    return {"description": description, **headers, "content": content}


def response_components() -> Json:
    """The responses that `error_responses` references, by name."""
    return {
        _name(status): answer(response.meaning, "Error") | {"headers": _headers(response.always, response.sometimes)}
        for status, response in ERROR_RESPONSES.items()
    }


def header_components() -> Json:
    """The headers that responses reference, by name."""
    return {name: {"description": text, "schema": schema} for name, (text, schema) in HEADERS.items()}


def _headers(always: Iterable[str], sometimes: Iterable[str]) -> Json:
    known = header_components()
    required = {name: {**known[name], "required": True} for name in always}
    return required | {name: {"$ref": f"#/components/headers/{name}"} for name in sometimes}


def _name(status: int) -> str:
    return f"Error{status}"
