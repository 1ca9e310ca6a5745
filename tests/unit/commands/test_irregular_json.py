"""Irregular JSON of senders: byte order marks, forms, repeated keys, lone surrogates, and numbers beyond floats."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers, QueryParams

from models.commands.content_ids import content_hash, decode_exactly, same_json
from models.commands.payloads import parse_envelope
from models.decoding.repeated_keys import require_unique_keys
from models.decoding.strict import decode_json
from models.errors import Invalid, NotJson, RelayError
from relay.http.form_bodies import MAX_FIELDS, payload_of, read_form
from relay.http.path_normalization import normalize_path
from relay.ingest.token_webhooks import parse_hook, read_event, split_parameters
from tests.support.inputs.hostile import require_linear

FORM = Headers({"Content-Type": "application/x-www-form-urlencoded"})


def refusal(body: bytes) -> RelayError:
    with pytest.raises(RelayError) as caught:
        decode_json(body)
    return caught.value


# Keys given twice


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": {"x": 1}, "b": [{"y": 1, "y": {"z": ":"}}]}', "y"),
        (b'{"a": 1, "\\u0061": 1}', "a"),
        (b'{"b": "\\u003a\\u003A", "a": 1, "a": 2}', "a"),
        (b'{"b": "\\\\u003a", "a": ":::", "a": 2}', "a"),
        ('{"ключ": 1, "ключ": 2}'.encode(), "ключ"),
    ],
)
def test_a_repeated_key_is_named(body: bytes, key: str) -> None:
    error = refusal(body)
    assert (error.status, error.code, error.field) == (422, "repeated_key", key)
    assert repr(key) in error.message


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_without_repeated_keys_is_accepted(value: Any) -> None:
    plain = msgspec.json.encode(value)
    for body in (plain, msgspec.json.format(plain), json.dumps(value).encode()):
        require_unique_keys(body, msgspec.json.decode(body))


def test_keys_of_other_objects_and_colons_in_texts_are_not_repeats() -> None:
    assert decode_json(b'{"a": {"a": "a\\":b", "b": "\\u003a"}, "b": [{"a": 1}, {"a": 1}]}')


def test_a_command_with_a_repeated_key_in_its_content_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        parse_envelope(b'{"command": "store_memory", "session_id": "s", "data": {"content": {"a": 1, "a": 2}}}')
    assert caught.value.code == "repeated_key"


# Numbers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1.00000000000000000001", b"1.0"),
        (b"0.1000000000000000055511151231257827", b"0.1"),
        (b"[123456789012345678.5]", b"[123456789012345678.25]"),
    ],
)
def test_numbers_that_are_equal_as_floats_are_distinguished(one: bytes, other: bytes) -> None:
    assert msgspec.json.decode(one) == msgspec.json.decode(other)
    assert content_hash(decode_exactly(one)) != content_hash(decode_exactly(other))
    assert not same_json(one, other)
    hashes, keys = set(), set()
    for number in (one, other):
        sent = parse_envelope(b'{"command": "store_memory", "session_id": "s", "data": {"content": %b}}' % number)
        hashes.add(sent.hash)
        keys.add(sent.command.key)  # type: ignore[attr-defined]
    assert (len(hashes), len(keys)) == (2, 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [(b"0.10", b"0.1"), (b"1e3", b"1000.0"), (b"0.10000000000000000000", b"0.1"), (b"100.00e-2", b"1.0")],
)
def test_different_spellings_of_a_number_are_equal(one: bytes, other: bytes) -> None:
    assert same_json(one, other)


# Text


@pytest.mark.parametrize(
    ("body", "half"),
    [
        (b'{"a": "\\ud83d"}', "\\ud83d"),
        (b'["\\ud83d\\u0041"]', "\\ud83d"),
        (b'["\\\\", "\\uDC00 "]', "\\uDC00"),
        (b'["\\ud83d\\ude00", "x\\n\\ud83d\\ude00\\ud83d"]', "\\ud83d"),
    ],
)
def test_a_lone_surrogate_is_reported_as_such(body: bytes, half: str) -> None:
    error = refusal(body)
    assert isinstance(error, NotJson)
    assert f"{half}, half of a surrogate pair" in error.message
    assert "truncate" in (error.hint or "")


@pytest.mark.parametrize("body", [b'{"a": "\\\\ud83d"', b'["\\ud83d\\ude00"', b"{"])
def test_other_faults_are_not_reported_as_surrogates(body: bytes) -> None:
    assert "surrogate" not in refusal(body).message


def test_an_encoding_that_is_not_utf_8_is_named() -> None:
    assert refusal('{"a": 1}'.encode("utf-16")).message == "The body is UTF-16."
    assert refusal('{"a": "ü"}'.encode("latin-1")).message == "The body is not UTF-8."


# Forms


def test_a_form_becomes_an_object_of_its_fields() -> None:
    body = urlencode([("text", "a b&c=d"), ("user", "Zoë"), ("empty", ""), ("tag", "x"), ("tag", "y"), ("tag", "z")])
    assert read_form(body.encode()) == {"text": "a b&c=d", "user": "Zoë", "empty": "", "tag": ["x", "y", "z"]}
    assert read_form(b"name=caf%E9&x=1") == {"name": "café", "x": "1"}
    assert read_form("name=Zoë".encode()) == {"name": "Zoë"}


def test_the_json_in_a_payload_field_is_read() -> None:
    event = {"action": "opened", "number": 1.5}
    body = urlencode({"payload": msgspec.json.encode(event).decode(), "token": "t"}).encode()
    read = read_event(body, headers=FORM)
    assert read.value == {"payload": event, "token": "t"}
    assert b"-opened-" in msgspec.json.encode(parse_hook(read, session_id="s", name="n").command)
    assert msgspec.json.decode(payload_of(body)) == event
    for wrong in (b"", b"a=1", b"payload=1&payload=2"):
        with pytest.raises(NotJson) as caught:
            payload_of(wrong)
        assert "application/json" in (caught.value.hint or "")
    assert read_form(b"payload=%7Bnot+json") == {"payload": "{not json"}


def test_a_form_with_too_many_fields_or_a_nul_is_refused() -> None:
    assert len(read_form(b"&".join(b"f%d=1" % n for n in range(MAX_FIELDS)))) == MAX_FIELDS
    for body in (b"a=1&" * MAX_FIELDS, b"a=%00", b"%00=a"):
        with pytest.raises(Invalid):
            read_event(body, headers=FORM)


@pytest.mark.parametrize("part", [b"%", b"%E9", b"+", b"a=b&a", b"\xff", b"=", b"%25"])
def test_hostile_forms_are_read_in_linear_time(part: bytes) -> None:
    def read(size: int) -> None:
        with contextlib.suppress(RelayError):
            read_event((b"a=" + part * size)[:size], headers=FORM)

    require_linear(read, 10_000)


# Addresses


def test_url_parameters_are_kept_with_the_event() -> None:
    own, parameters = split_parameters(QueryParams("wait=3&secret=s3&x=1&x=2"))
    assert own.multi_items() == [("wait", "3")]
    event = read_event(b' {"type": "up"} ', headers=Headers(), parameters=parameters)
    assert event.content == b'{"query":{"secret":"s3","x":["1","2"]},"body":{"type": "up"}}'
    key = parse_hook(event, session_id="s", name="n").command.key  # type: ignore[attr-defined]
    assert key.startswith("n-up-")
    assert "s3" not in key
    assert read_event(b"", headers=Headers(), parameters=[("a", "b")]).content == b'{"query":{"a":"b"}}'
    with pytest.raises(NotJson):
        read_event(b"", headers=Headers())
    with pytest.raises(Invalid):
        read_event(b"{}", headers=Headers(), parameters=[("a", "\0")])


@pytest.mark.parametrize(
    ("path", "tidy"),
    [
        ("/v1/webhook/", "/v1/webhook"),
        ("//v1///webhook//", "/v1/webhook"),
        ("/mcp/", "/mcp"),
        ("/", "/"),
        ("//", "/"),
        ("/v1/sessions/s/memories/", "/v1/sessions/s/memories"),
        ("//v1/sessions/s/memories/a//b/", "/v1/sessions/s/memories/a//b/"),
        ("/v1/webhook", "/v1/webhook"),
    ],
)
def test_extra_slashes_are_ignored(path: str, tidy: str) -> None:
    assert normalize_path(path) == tidy
