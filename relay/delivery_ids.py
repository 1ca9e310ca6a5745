"""The id of a delivery: the sender's, by which a repeat is recognized, or else a new one."""

from __future__ import annotations

import re

from models.errors import Invalid
from models.identity import make_uuid7
from models.vocabulary import DELIVERY_ID_PATTERN, PATTERNS

HEADER = "Idempotency-Key"

_ID = re.compile(DELIVERY_ID_PATTERN)


def choose_delivery_id(header: str | None, body_id: str | None) -> str:
    """The header's id (quoted or not), else the body's, else a new UUIDv7. Raises Invalid."""
    if header is None:
        return body_id or make_uuid7()
    delivery_id = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if not _ID.search(delivery_id):
        raise Invalid(
            f"The header {HEADER} is not valid.",
            code="invalid_field",
            field=HEADER,
            expected=PATTERNS[DELIVERY_ID_PATTERN],
            hint="Use a UUID, or leave it out.",
        )
    return delivery_id
