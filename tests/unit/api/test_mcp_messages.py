"""The arguments of a tool call are decoded once, and not by the SDK; errors are those of the whole message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.mcp.messages import read_message
from models.commands.payloads import parse_flat
from models.decoding.strict import decode_json
from models.errors import Rejected

ARGUMENTS = b'{"session_id": "walk", "content": {"a:b": [1.50, "' + b"x" * 50_000 + b'"]}}'


def call(arguments: bytes, *, name: str = "store_memory", more: bytes = b"") -> bytes:
    return (
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", %b"params": {"name": "%b", "arguments": %b, "_meta": '
        b'{"progressToken": 1.0}}}' % (more, name.encode(), arguments)
    )


def test_the_sdk_gets_a_call_without_its_arguments() -> None:
    message = read_message(call(ARGUMENTS))
    assert msgspec.json.decode(message.body) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "store_memory", "arguments": {}, "_meta": {"progressToken": 1.0}},
    }
    assert bytes(message.arguments) == ARGUMENTS
    assert message.submission == parse_flat("store_memory", ARGUMENTS)


@pytest.mark.parametrize("name", ["claim_task", "send_command", "store_memory"])
def test_arguments_not_in_the_strict_form_are_passed_on_unchanged(name: str) -> None:
    message = read_message(call(b'{"anything": "at all", "limit": "5"}', name=name))
    assert len(message.body) < 150
    assert (bytes(message.arguments), message.submission) == (b'{"anything": "at all", "limit": "5"}', None)


@pytest.mark.parametrize(
    "body",
    [
        call(b"null"),
        call(b"[]"),
        call(b'"{}"'),
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}',
        b'{"params": 1}',
        b"[]",
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    ],
)
def test_the_sdk_gets_other_messages_unchanged(body: bytes) -> None:
    assert read_message(body).body == body


@pytest.mark.parametrize(
    "body",
    [
        call(b'{"content": 1, "content": 2}'),
        call(b'{"content": {"a": 1, "a": 2}}'),
        call(b'{"content": 1}', more=b'"id": 2, '),
        call(b'{"content": 1}', more=b'"params": {}, '),
        call(b'{"content": "\\ud800"}'),
        call(b'{"content": "\\u0000"}'),
        call(b'{"content": 1e400}'),
        call(b'{"content": ' + b"9" * 101 + b"}"),
        call(b'{"content": ' + b"[" * 97 + b"]" * 97 + b"}"),
        call(b'{"content": ' + b"[" * 98 + b"]" * 98 + b"}"),
        call(b'{"content": 01}'),
        call(b'{"content": "\xff"}'),
        call(b'{"content": 1}') + b"x",
        call(b'{"content": 1'),
    ],
)
def test_an_invalid_message_gets_the_same_error_as_without_splitting(body: bytes) -> None:
    assert outcome(read_message, body) == outcome(decode_json, body)


def outcome(read: Any, body: bytes) -> object:
    try:
        read(body)
    except Rejected as error:
        return error.body()
    return None
