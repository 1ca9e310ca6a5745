"""Delivery ids: the sender's, by which repeats are recognized, or a new one."""

from __future__ import annotations

import hashlib
import re

from models.commands.content_ids import make_uuid7
from models.errors import Invalid
from models.field_types import DELIVERY_ID_PATTERN, PATTERNS

HEADER = "Idempotency-Key"
ID_DIGITS = 40
"""Hex digits of the hash from which an id is made: 160 bits."""

_ID = re.compile(DELIVERY_ID_PATTERN)


def as_delivery_id(text: str) -> str:
    """Returns the id of a sender that cannot choose its form: unchanged, or hashed if it is not a valid delivery id."""
    return text if _ID.search(text) else f"id-{hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]}"


def unquoted(text: str) -> str:
    """Returns the text without the quotation marks that the Idempotency-Key draft asks for."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def choose_delivery_id(header: str | None, body_id: str | None) -> str:
    """Returns the header's id (quoted or not), else the body's, else a new UUIDv7. Raises Invalid."""
    if header is None:
        return body_id or make_uuid7()
    delivery_id = unquoted(header)
    if not _ID.search(delivery_id):
        raise Invalid(
            f"Invalid {HEADER} header.",
            code="invalid_field",
            field=HEADER,
            expected=PATTERNS[DELIVERY_ID_PATTERN],
            hint="Use a UUID, or leave it out.",
        )
    return delivery_id
