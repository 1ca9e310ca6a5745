"""Decodes protocol messages: decodes tool arguments once, here, and leaves the rest to the SDK."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Raw

from models.commands.lenient_decoding import NULL
from models.commands.payloads import Submission, parse_flat_strictly
from models.commands.strict_payloads import is_unusual
from models.decoding.strict import decode_json
from models.errors import Rejected

NO_ARGUMENTS = Raw(b"{}")
CALL_TOOL = "tools/call"


class Message(NamedTuple):
    """A protocol message."""

    body: bytes
    """The message for the SDK, without arguments that it need not decode."""
    arguments: Raw = NO_ARGUMENTS
    """Tool arguments, undecoded: decoding numbers into floats would change them."""
    submission: Submission | None = None
    """The decoded command of a tool call whose arguments are in the strict form."""


class _Parameters(msgspec.Struct, frozen=True):
    arguments: Raw = NO_ARGUMENTS


class _Call(msgspec.Struct, frozen=True):
    params: _Parameters = _Parameters()


def read_message(body: bytes) -> Message:
    """Decode a message, and check what the SDK does not. Raises NotJson or Invalid."""
    return _split_call(body) or _read_whole(body)


def _split_call(body: bytes) -> Message | None:
    """Separate a tool call from its arguments. Returns None for other messages, and for those that need full checks."""
    if is_unusual(body):
        return None
    try:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        parameters = msgspec.json.decode(fields["params"], type=dict[str, Raw])
        method, name = (msgspec.json.decode(raw, type=str) for raw in (fields["method"], parameters["name"]))
        arguments = parameters["arguments"]
        if method != CALL_TOOL or not bytes(arguments).startswith(b"{"):
            return None
        call = msgspec.json.encode({**fields, "params": {**parameters, "arguments": NO_ARGUMENTS}})
        # Decoding drops repeated keys, so then there are fewer colons.
        if body.count(b":") != call.count(b":") + bytes(arguments).count(b":"):
            return None
        decode_json(call)
        submission = parse_flat_strictly(name, bytes(arguments))
        if submission is None:
            decode_json(bytes(arguments))
    except (msgspec.DecodeError, UnicodeDecodeError, Rejected, KeyError):
        return None
    return Message(call, arguments, submission)


def _read_whole(body: bytes) -> Message:
    decode_json(body)
    try:
        arguments = msgspec.json.decode(body, type=_Call).params.arguments
    except msgspec.ValidationError:  # Not a tool call. The server reports errors in it, if any.
        return Message(body)
    return Message(body) if arguments == NULL else Message(body, arguments)
