"""Parses signed bodies: a command, alone or in GitHub's repository_dispatch, or an event to ignore."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from models.commands.content_ids import content_hash
from models.commands.payloads import Submission, parse_envelope, parse_envelope_strictly
from models.commands.strict_payloads import ENVELOPE_TYPE
from models.decoding.strict import decode_json

REPOSITORY_DISPATCH = "repository_dispatch"
"""The only GitHub event whose content its sender chooses."""


class IgnoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated body that is not meant for the relay."""

    reason: str
    hash: str


def parse_signed(body: bytes, *, event: str) -> Submission | IgnoredEvent:
    """Returns the command in a body, or in a repository_dispatch. Raises NotJson, or Invalid for a malformed command;
    never for a body without a command."""
    if found := parse_envelope_strictly(body):
        return found
    value = decode_json(body, unique_keys=False)  # Bodies that are ignored may repeat keys.
    if _is_command(value):
        return parse_envelope(body)
    if event == REPOSITORY_DISPATCH and isinstance(value, dict) and _is_command(value.get("client_payload")):
        return parse_envelope(bytes(msgspec.json.decode(body, type=dict[str, Raw])["client_payload"]))
    return IgnoredEvent(reason=_reason(value, event), hash=content_hash(["ignored", value]))


def _is_command(value: Any) -> bool:
    """Whether it is meant as a command, valid or not. Other senders' events have another type."""
    return isinstance(value, dict) and (value["type"] == ENVELOPE_TYPE if "type" in value else "command" in value)


def _reason(value: Any, event: str) -> str:
    if event == REPOSITORY_DISPATCH:
        return "The client_payload of the repository_dispatch is not a command."
    if event:
        return f"The GitHub event {event} is not a command."
    if isinstance(value, dict) and "type" in value:
        return f"Its type is not {ENVELOPE_TYPE}."
    return "It has no command."
