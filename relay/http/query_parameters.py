"""Decodes query parameters by the same definitions as JSON, by writing them as JSON first."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar, get_origin

import msgspec
from msgspec import Raw
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from models.commands.lenient_decoding import decode_leniently, plain_type
from models.errors import Invalid
from relay.http.responses import RecordRejection, error_response

MAX_PARAMETERS = 250
"""Per URL. The longest lists have a hundred items."""

T = TypeVar("T", bound=msgspec.Struct)

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?")


class ParameterLimitMiddleware:
    """Middleware: rejects a URL with too many parameters before they are parsed."""

    def __init__(self, app: ASGIApp, *, record_rejection: RecordRejection) -> None:
        self._app = app
        self._record_rejection = record_rejection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count, or pass the request on."""
        if scope["type"] != "http" or scope["query_string"].count(b"&") < MAX_PARAMETERS:
            await self._app(scope, receive, send)
            return
        error = Invalid(
            "The URL has too many parameters.", code="too_many_parameters", expected=f"at most {MAX_PARAMETERS}"
        )
        self._record_rejection(scope, error)
        await error_response(error)(scope, receive, send)


class NoParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For endpoints without parameters."""


def decode_parameters(query: QueryParams, shape: type[T], **given: str) -> T:
    """Decodes parameters of the query, and of the path (`given`), into a `shape`. Raises Invalid with the name.

    A parameter without a value counts as absent. Lists are repeated parameters, or one with commas.
    """
    types = _types_of(shape)
    values: dict[str, list[str]] = {}
    for name, value in query.multi_items():
        texts = values.setdefault(name, [])
        if value:
            texts.append(value)
    for name in given.keys() & values.keys():
        raise Invalid(f"{name[:64]!r} is already in the path.", code="invalid_field", field=name[:64])
    written = {
        name: _write(name, texts, types.get(name, str))
        for name, texts in (values | {name: [text] for name, text in given.items()}).items()
        if texts
    }
    return decode_leniently(msgspec.json.encode(written), shape)


@cache
def _types_of(shape: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.encode_name: plain_type(field.type) for field in msgspec.structs.fields(shape)}


def _write(name: str, texts: list[str], hint: Any) -> Raw:
    if any("\0" in text for text in texts):
        raise Invalid("The text contains a NUL character.", field=name[:64], expected="text without U+0000")
    if get_origin(hint) is list:
        return Raw(msgspec.json.encode([part for text in texts for part in text.split(",") if part]))
    if len(texts) > 1:
        raise Invalid(f"The parameter {name[:64]!r} occurs {len(texts)} times.", code="invalid_field", field=name[:64])
    text = texts[0]
    number = {int: _INTEGER, float: _DECIMAL}.get(hint)
    if number and number.fullmatch(text):
        return Raw(text.encode())
    if hint is bool and text.lower() in ("true", "false"):
        return Raw(text.lower().encode())
    return Raw(msgspec.json.encode(text))
