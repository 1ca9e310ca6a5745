"""What is posted to a token's address, by senders that can set no header: any JSON, which becomes a memory."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from models.commands import StoreMemory
from models.decoding import decode_json
from models.identity import content_hash, derive_id, leading_text
from models.payloads import Submission

KIND_FIELDS = ("type", "event", "action")
"""Where senders commonly say what has happened."""
ID_DIGITS = 40
"""Of the hash that is the delivery id: 160 bits."""


def parse_hook(body: bytes, *, session_id: str, name: str) -> Submission:
    """The command that stores the body, as it is, as a memory tagged with the token's name. The same body again is the
    same delivery: such senders give no id, and repeat what was not answered. Raises NotJson or Invalid."""
    value = decode_json(body)
    identity = _identity(value)
    fingerprint = content_hash(["hook", session_id, identity])
    command = StoreMemory(
        content=Raw(body.strip()), type="note", key=derive_id(name, _kind(value), identity), tags=[name]
    )
    return Submission(
        command=command,
        session_id=session_id,
        delivery_id=f"hook-{fingerprint[:ID_DIGITS]}",
        sync=False,
        fingerprint=fingerprint,
    )


def _identity(value: Any) -> Any:
    """What two attempts at the same delivery have in common: all of it, but for Railway's events what tells them
    apart: type, deployment and time."""
    if isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("timestamp"), str):
        resource = value.get("resource")
        deployment = (resource if isinstance(resource, dict) else value).get("deployment")
        if isinstance(deployment, dict) and isinstance(deployment.get("id"), str):
            return [value["type"], deployment["id"], value["timestamp"]]
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        for field in KIND_FIELDS:
            if isinstance(value.get(field), str):
                return str(value[field])
    return leading_text(value)
