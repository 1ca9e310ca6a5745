"""What is posted to a token's address, by senders that can set no header: any JSON, which becomes a memory."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from msgspec import Raw
from starlette.datastructures import Headers

from models.commands import StoreMemory
from models.decoding import decode_json
from models.identity import FINGERPRINT_LENGTH, leading_text, make_slug
from models.payloads import Submission
from relay.delivery_ids import ID_DIGITS, as_delivery_id, unquoted

ID_HEADERS = ("Idempotency-Key", "webhook-id", "svix-id", "X-GitHub-Delivery")
"""Where senders name a delivery, in the order in which they count. None of them has to be signed here: whoever knows
the address of a hook may post what it likes."""
KIND_FIELDS = ("type", "event", "action")
"""Where senders commonly say what has happened."""


def sender_id_of(headers: Headers) -> str | None:
    """The id that the sender has given to its delivery, if any."""
    given = (unquoted(headers.get(name, "").strip()) for name in ID_HEADERS)
    return next((as_delivery_id(text) for text in given if text), None)


def parse_hook(
    body: bytes, *, session_id: str, name: str, at: datetime | None = None, sender_id: str | None = None
) -> Submission:
    """The command that stores the body, as it is, as a memory tagged with the token's name, with a key of its own. The
    sender's id decides what is the same delivery; without one, the same body is, within the minutes in which senders
    repeat what was not answered. Raises NotJson or Invalid."""
    value = decode_json(body)
    fingerprint = hashlib.sha256(b"%b\n%b" % (session_id.encode(), body)).hexdigest()
    of_this = hashlib.sha256(f"{sender_id or ''}\n{fingerprint}".encode()).hexdigest()[:FINGERPRINT_LENGTH]
    parts = (name, make_slug(_kind(value)), f"{at or datetime.now(UTC):%Y%m%dT%H%M%SZ}", of_this)
    return Submission(
        command=StoreMemory(
            content=Raw(body.strip()), type="note", key="-".join(part for part in parts if part), tags=[name]
        ),
        session_id=session_id,
        delivery_id=sender_id or f"hook-{fingerprint[:ID_DIGITS]}",
        sync=False,
        by_content=sender_id is None,
        fingerprint=fingerprint,
    )


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        for field in KIND_FIELDS:
            if isinstance(value.get(field), str):
                return str(value[field])
    return leading_text(value)
