"""Form bodies, as GitHub, Slack and Zapier send them unless configured for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers

from models.errors import Invalid, NotJson
from relay.http.bodies import FORM, media_types_of

MAX_FIELDS = 1_000
PAYLOAD = "payload"
"""The field with an event's JSON, at GitHub and Slack."""


def is_form(headers: Headers, body: bytes) -> bool:
    """Whether the body is a form. Some clients, such as `curl -d`, send JSON with that content type, too."""
    return FORM in media_types_of(headers) and not body.lstrip().startswith((b"{", b"["))


def read_form(body: bytes) -> dict[str, Any]:
    """Parses a form; the field `payload` may hold JSON. Raises Invalid."""
    fields = collect_fields(parse_fields(body))
    if isinstance(text := fields.get(PAYLOAD), str) and text[:1] in ("{", "["):
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return fields
        fields[PAYLOAD] = msgspec.Raw(text.encode())
    return fields


def collect_fields(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Returns fields by name; repeated ones as a list."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        known = fields.get(name)
        if name not in fields:
            fields[name] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            fields[name] = [known, value]
    return fields


def payload_of(body: bytes) -> bytes:
    """Returns the JSON in GitHub's form. Raises Invalid or NotJson."""
    found = [value for name, value in parse_fields(body) if name == PAYLOAD]
    if len(found) != 1:
        raise NotJson(
            f"The form has {len(found)} fields {PAYLOAD!r}.",
            expected=f"JSON, or one field {PAYLOAD!r} that holds it",
            hint="Set the content type of the webhook to application/json.",
        )
    return found[0].encode()


def parse_fields(body: bytes) -> list[tuple[str, str]]:
    """Returns names and values in order, decoded as UTF-8, or else as Latin-1. Raises Invalid."""
    if body.count(b"&") >= MAX_FIELDS:
        raise Invalid("The form has too many fields.", expected=f"at most {MAX_FIELDS:,} fields")
    # Each byte, raw or percent-encoded, becomes one character first, so that all are decoded in one pass.
    pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", separator="&")
    try:
        return [(_as_utf8(name), _as_utf8(value)) for name, value in pairs]
    except UnicodeDecodeError:
        return pairs


def _as_utf8(text: str) -> str:
    return text.encode("latin-1").decode()
