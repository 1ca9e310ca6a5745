"""The id of a delivery: the sender's, by which a repeat is recognized, or else a new one."""

from __future__ import annotations

import re
import secrets
import time
import uuid

from models.errors import Invalid
from models.vocabulary import DELIVERY_ID_PATTERN, PATTERNS

HEADER = "Idempotency-Key"

_ID = re.compile(DELIVERY_ID_PATTERN)


def choose_delivery_id(header: str | None, body_id: str | None) -> str:
    """The header's id (quoted or not), else the body's, else a new UUIDv7. Raises Invalid."""
    if not header:
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


def make_uuid7() -> str:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits. Later ones sort later."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))
