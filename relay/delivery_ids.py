"""The id of a delivery: the sender's, by which a repeat is recognized, or else a new one."""

from __future__ import annotations

import hashlib
import re

from models.commands.content_ids import make_uuid7
from models.errors import Invalid
from models.field_types import DELIVERY_ID_PATTERN, PATTERNS

HEADER = "Idempotency-Key"
ID_DIGITS = 40
"""Of the hash where an id is made from something else: 160 bits."""

_ID = re.compile(DELIVERY_ID_PATTERN)


def as_delivery_id(text: str) -> str:
    """The id that a sender gives which cannot choose another: as it is, or made from it if ids are not written so."""
    return text if _ID.search(text) else f"id-{hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]}"


def unquoted(text: str) -> str:
    """What stands in quotation marks, as the draft of the header Idempotency-Key has it, or the text as it is."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def choose_delivery_id(header: str | None, body_id: str | None) -> str:
    """The header's id (quoted or not), else the body's, else a new UUIDv7. Raises Invalid."""
    if header is None:
        return body_id or make_uuid7()
    delivery_id = unquoted(header)
    if not _ID.search(delivery_id):
        raise Invalid(
            f"The header {HEADER} is not valid.",
            code="invalid_field",
            field=HEADER,
            expected=PATTERNS[DELIVERY_ID_PATTERN],
            hint="Use a UUID, or leave it out.",
        )
    return delivery_id
