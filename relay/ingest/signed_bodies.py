"""What a signed body is: a command, alone or in GitHub's repository_dispatch, or an event that is only kept."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from models.commands.content_ids import content_hash
from models.commands.payloads import Submission, parse_envelope, parse_envelope_strictly
from models.commands.strict_form import ENVELOPE_TYPE
from models.decoding.strict import decode_json

REPOSITORY_DISPATCH = "repository_dispatch"
"""The one event of GitHub whose content somebody chose."""


class IgnoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A body that is not meant for the relay, though its sender is known."""

    reason: str
    hash: str


def parse_signed(body: bytes, *, event: str) -> Submission | IgnoredEvent:
    """The command that a body is, or in a repository_dispatch holds. Raises NotJson, or Invalid for a command that is
    meant as one and wrong; never because it is none."""
    if found := parse_envelope_strictly(body):
        return found
    value = decode_json(body, unique_keys=False)  # Nobody asked for those of others, which have no effect.
    if _is_command(value):
        return parse_envelope(body)
    if event == REPOSITORY_DISPATCH and isinstance(value, dict) and _is_command(value.get("client_payload")):
        return parse_envelope(bytes(msgspec.json.decode(body, type=dict[str, Raw])["client_payload"]))
    return IgnoredEvent(reason=_reason(value, event), hash=content_hash(["ignored", value]))


def _is_command(value: Any) -> bool:
    """Whether it is meant as one, right or wrong; events of others have a type, too, but not ours."""
    return isinstance(value, dict) and (value["type"] == ENVELOPE_TYPE if "type" in value else "command" in value)


def _reason(value: Any, event: str) -> str:
    if event == REPOSITORY_DISPATCH:
        return "The client_payload of the repository_dispatch is no command."
    if event:
        return f"The GitHub event {event} is no command."
    if isinstance(value, dict) and "type" in value:
        return f"Its type is not {ENVELOPE_TYPE}."
    return "It has no command."
