"""Invalid webhooks are refused with an explanation, and leave nothing behind."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import Redis

from tests.support.processes.serving import Serving, Stopwatch, entries, memory
from tests.support.project import API_KEY

SESSION = "solar-roof"


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Empty the inbox before each test."""


def nested(depth: int) -> bytes:
    return b'{"command":"store_memory","session_id":"s","data":{"content":' + b"[" * depth + b"]" * depth + b"}}"


def with_content(content: bytes) -> bytes:
    return b'{"command":"store_memory","session_id":"s","data":{"content":' + content + b"}}"


BAD_BODIES = {
    "empty": (b"", 400, "not_json", None),
    "not JSON": (b"hello", 400, "not_json", None),
    "cut off": (b'{"command":', 400, "not_json", None),
    "an array": (b"[1, 2]", 400, "not_an_object", None),
    "a text": (b'"store_memory"', 400, "not_an_object", None),
    "null": (b"null", 400, "not_an_object", None),
    "not UTF-8": (b'{"command": "\xff"}', 400, "not_json", None),
    "lone surrogate": (with_content(rb'"\ud800"'), 400, "not_json", None),
    "NaN": (with_content(b"NaN"), 400, "not_json", None),
    "infinite": (with_content(b"1e999"), 422, "invalid", None),
    "NUL": (with_content(rb'"a\u0000b"'), 422, "invalid", None),
    "6,000 digits": (with_content(b"9" * 6000), 422, "invalid", None),
    "nested 200": (nested(200), 422, "invalid", None),
    "nested 5,000": (nested(5000), 422, "invalid", None),
    "no command": (b"{}", 422, "missing_field", "command"),
    "unknown command": (b'{"command":"store_memry"}', 422, "unknown_command", "command"),
    "command of another type": (b'{"command":5}', 422, "invalid_field", "command"),
    "unknown field": (
        b'{"command":"store_memory","session_id":"s","data":{"content":1,"tag":[]}}',
        422,
        "unknown_field",
        "data.tag",
    ),
    "unknown field outside": (b'{"command":"list_sessions","dat":{}}', 422, "unknown_field", "dat"),
    "a number for a list": (
        b'{"command":"store_memory","session_id":"s","data":{"content":1,"tags":7}}',
        422,
        "invalid_field",
        "data.tags",
    ),
    "data as a list": (b'{"command":"store_memory","session_id":"s","data":[]}', 422, "invalid", "data"),
    "session as a path": (
        b'{"command":"store_memory","session_id":"../../etc","data":{"content":1}}',
        422,
        "invalid_field",
        "session_id",
    ),
    "task as a path": (
        b'{"command":"get_task","session_id":"s","data":{"task_id":"../t"}}',
        422,
        "invalid_field",
        "data.task_id",
    ),
    "no session": (b'{"command":"store_memory","data":{"content":1}}', 422, "missing_field", "session_id"),
    "two sessions": (
        b'{"command":"store_memory","session_id":"a","data":{"content":1,"session_id":"b"}}',
        422,
        "invalid",
        "data.session_id",
    ),
    "another type": (b'{"type":"github","command":"list_sessions"}', 422, "not_a_command", "type"),
}


@pytest.mark.parametrize(("body", "status", "code", "field"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_bad_input_is_explained_and_not_stored(
    relay: Serving, redis: Redis, body: bytes, status: int, code: str, field: str | None
) -> None:
    answer = relay.post(body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert field is None or error["field"] == field
    assert error["message"]
    assert error["retryable"] is False
    assert entries(redis) == []


def test_an_unknown_command_in_the_path_lists_the_valid_ones(relay: Serving, redis: Redis) -> None:
    error = relay.post({}, "/v1/commands/store_memry").json()["error"]
    assert (error["code"], error["hint"]) == ("unknown_command", "Did you mean 'store_memory'?")
    assert "create_session" in error["expected"]


def test_a_body_announced_as_too_large_is_refused(relay: Serving, redis: Redis) -> None:
    answer = relay.post(with_content(b'"' + b"x" * 10 * 1_048_576 + b'"'))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert "1,048,576" in answer.json()["error"]["expected"]
    assert entries(redis) == []
    assert relay.post(memory(SESSION)).status_code == 202


def test_a_body_that_becomes_too_large_is_refused(relay: Serving, redis: Redis) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"command":"store_memory","session_id":"s","data":{"content":"'
        for _ in range(160):
            yield b"x" * 65_536
        yield b'"}}'

    answer = relay.client.post("/v1/webhook", content=parts())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert entries(redis) == []


def test_an_endless_body_is_cut_off(relay: Serving) -> None:
    head = f"POST /v1/webhook HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    watch = Stopwatch()
    parts = itertools.repeat(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
    with closing(socket.create_connection(("127.0.0.1", relay.port), timeout=20)) as connection:
        connection.sendall(head.encode())
        with pytest.raises(ConnectionError):
            connection.sendall(b"".join(itertools.islice(parts, 2048)))
    assert watch.seconds < 15


def test_a_body_of_exactly_the_limit_is_accepted(relay: Serving, redis: Redis) -> None:
    frame = len(with_content(b'""'))
    fits = with_content(b'"' + b"x" * (1_048_576 - frame) + b'"')
    assert len(fits) == 1_048_576
    assert relay.post(fits).status_code == 202
    assert relay.post(fits + b" ").status_code == 413
    assert len(entries(redis)) == 1


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/cloudevents+json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
    ],
)
def test_json_is_accepted_under_common_media_types(relay: Serving, redis: Redis, content_type: str) -> None:
    assert relay.post(memory(SESSION), **{"Content-Type": content_type}).status_code == 202
    assert len(entries(redis)) == 1


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Content-Type": "application/xml"}, "Content-Type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "Content-Type"),
        ({"Content-Encoding": "br"}, "Content-Encoding"),
    ],
)
def test_other_media_types_are_refused_with_the_remedy(
    relay: Serving, redis: Redis, headers: dict[str, str], field: str
) -> None:
    answer = relay.post(memory(SESSION), **headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (415, "unsupported_media_type", field)
    assert "JSON" in error["hint"]
    assert entries(redis) == []


def test_form_data_is_refused(relay: Serving) -> None:
    answer = relay.post(b"command=store_memory", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 415
    assert answer.json()["error"]["expected"] == "application/json"
