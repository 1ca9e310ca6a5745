"""With what each kind of operation can answer, as responses of the OpenAPI document, made from one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from api.openapi.schemas import COMPONENT
from relay.delivery_ids import HEADER as IDEMPOTENCY_KEY

Json = dict[str, Any]

ANY = frozenset({400, 408, 503})
"""What is no HTTP, too slow, or on one connection too many, gets no further, whatever it asks for."""
OPEN = ANY | {403}
"""Addresses outside ALLOWED_IPS are kept out of these, too."""
KEYED = OPEN | {401, 429}
BODY = frozenset({413, 415, 422})
COMMAND = KEYED | BODY | {404, 409, 500}

RATE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_SECONDS_OR_COUNT: Json = {"type": "integer", "minimum": 0}
HEADERS: Mapping[str, tuple[str, Json]] = {
    "Retry-After": ("Seconds until another attempt is worth it.", _SECONDS_OR_COUNT),
    "WWW-Authenticate": ("How a key is sent.", {"type": "string"}),
    "RateLimit-Limit": ("How many requests the sender may make in a period.", _SECONDS_OR_COUNT),
    "RateLimit-Remaining": ("How many of them are left.", _SECONDS_OR_COUNT),
    "RateLimit-Reset": ("Seconds until there are more.", _SECONDS_OR_COUNT),
    IDEMPOTENCY_KEY: (
        "The delivery id to send it again with, lest it is done twice.",
        {"type": "string"},
    ),
}


class ErrorResponse(NamedTuple):
    """What an error's status means, and the headers that always come with it, and sometimes."""

    meaning: str
    always: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = RATE_HEADERS


REFUSALS: Mapping[int, ErrorResponse] = {
    400: ErrorResponse("It is no HTTP, or its body is not JSON, or no object, or not compressed as it says."),
    401: ErrorResponse("A valid key or signature is needed.", ("WWW-Authenticate",), ()),
    403: ErrorResponse("The key, or the address that it comes from, does not allow this."),
    404: ErrorResponse("There is nothing under this id, or address."),
    408: ErrorResponse("It did not arrive in time."),
    409: ErrorResponse("It contradicts what is there, or what was sent under this delivery id before."),
    413: ErrorResponse("The body is too large."),
    415: ErrorResponse("The body is of another type than JSON, or encoded in a way that is not known."),
    422: ErrorResponse("It does not match the schema, or has no meaning; `field` tells where."),
    429: ErrorResponse("It is too much at once for one sender.", ("Retry-After",)),
    500: ErrorResponse(
        "Code `dead_letter`: it is stored, but a fault here keeps it from taking effect until an operator replays it. "
        "Do not send it again."
    ),
    503: ErrorResponse("Not now; send it again later.", ("Retry-After",), (*RATE_HEADERS, IDEMPOTENCY_KEY)),
}


def error_responses(statuses: Iterable[int]) -> Json:
    """The responses of an operation for these errors."""
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in sorted(statuses)}


def answer(description: str, component: str | None, *more_types: str, is_open: bool = False) -> Json:
    """A successful response: JSON, unless there is no component for it, or text of one of the other types."""
    content: Json = {"application/json": {"schema": {"$ref": COMPONENT.format(name=component)}}} if component else {}
    content |= {media_type: {"schema": {"type": "string"}} for media_type in more_types}
    headers = {} if is_open else {"headers": _headers((), RATE_HEADERS)}
    return {"description": description, **headers, "content": content}


def response_components() -> Json:
    """The responses that `error_responses` refers to, by name."""
    return {
        _name(status): answer(refusal.meaning, "Error") | {"headers": _headers(refusal.always, refusal.sometimes)}
        for status, refusal in REFUSALS.items()
    }


def header_components() -> Json:
    """The headers that responses refer to, by name."""
    return {name: {"description": text, "schema": schema} for name, (text, schema) in HEADERS.items()}


def _headers(always: Iterable[str], sometimes: Iterable[str]) -> Json:
    known = header_components()
    required = {name: {**known[name], "required": True} for name in always}
    return required | {name: {"$ref": f"#/components/headers/{name}"} for name in sometimes}


def _name(status: int) -> str:
    return f"Error{status}"
