"""From a body to a command: accepted forms, refusals, and their hints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.commands.content_ids import leading_text, same_json
from models.commands.definitions import COMMANDS, Batch, ConversationChunk, DelegateTask, QueryMemories, StoreMemory
from models.commands.payloads import Submission, parse_envelope, parse_flat
from models.decoding.strict import STORE_IT
from models.errors import Invalid, NotJson, Rejected


def parse(command: str, session_id: str | None = "walk", /, **data: Any) -> Submission:
    return parse_envelope(json.dumps({"command": command, "session_id": session_id, "data": data}).encode())


def refused(body: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parse_envelope(body)
    return caught.value


def test_a_session_id_may_be_inside_data() -> None:
    submission = parse("store_memory", None, session_id="inside", content=1)
    assert submission.session_id == "inside"


def test_two_different_session_ids_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        parse("store_memory", "one", session_id="two", content=1)
    assert caught.value.field == "data.session_id"


def test_a_nested_conversation_becomes_a_conversation_chunk() -> None:
    submission = parse("append_conversation", conversation_chunk={"content": "hello", "chunk_id": "c1"})
    assert isinstance(submission.command, ConversationChunk)
    assert (submission.command.content, submission.command.chunk_id) == ("hello", "c1")


@pytest.mark.parametrize("data", [{"type": "idea", "tags": ["a"]}, {"filter": {"type": "idea", "tags": ["a"]}}])
def test_a_filter_may_be_flat_or_nested(data: dict[str, Any]) -> None:
    command = parse("query_memories", **data).command
    assert isinstance(command, QueryMemories)
    assert (command.type, command.tags) == ("idea", ["a"])


def test_task_is_an_alias_of_description() -> None:
    command = parse("delegate_task", task="research prices").command
    assert isinstance(command, DelegateTask)
    assert command.description == "research prices"


def test_a_batch_applies_its_conversation_first() -> None:
    submission = parse("batch", conversation_chunk={"content": "hi"}, commands=[{"command": "pause_session"}])
    assert isinstance(submission.command, Batch)
    assert [item.command for item in submission.command.commands] == ["conversation_chunk", "pause_session"]


def test_omitted_ids_are_derived_from_the_content() -> None:
    one, again, other = (parse("store_memory", type="idea", content=text) for text in ("Solar roof", "Solar roof", "x"))
    assert isinstance(one.command, StoreMemory)
    assert str(one.command.key).startswith("idea-solar-roof-")
    assert one.hash == again.hash
    assert one.hash != other.hash


def test_the_first_nearby_text_in_the_data_names_its_id() -> None:
    data: list[Any] = [1, "", [[], {"a": None, "b": ["first", "second"]}], "third"]
    assert leading_text(data) == "first"
    assert leading_text([[]] * 9_000 + data) == "first"
    assert leading_text([[]] * 11_000 + data) == ""
    assert leading_text({}) == ""


def test_a_session_gets_its_id_from_the_title() -> None:
    one, again = (parse("create_session", None, title="Solar roof") for _ in range(2))
    assert one.session_id == again.session_id
    assert str(one.session_id).startswith("solar-roof-")


def test_a_session_needs_a_title_or_an_id() -> None:
    with pytest.raises(Invalid) as caught:
        parse("create_session", None)
    assert (caught.value.code, caught.value.field) == ("missing_field", "session_id")


def test_names_are_normalized_for_comparison() -> None:
    composed, decomposed = (parse("store_memory", key=key, content=1) for key in ("Köln", "Ko\u0308ln"))
    assert composed.hash == decomposed.hash


def test_the_hash_covers_what_takes_effect() -> None:
    plain = {"command": "store_memory", "session_id": "walk", "data": {"key": "k", "content": {"a": 1, "b": 2}}}
    waiting = {**plain, "id": "d1", "sync": True, "data": {"content": {"b": 2, "a": 1}, "key": "k"}}
    other = {**plain, "data": {"key": "k", "content": {"a": 1, "b": 3}}}
    first, second, third = (parse_envelope(json.dumps(body).encode()) for body in (plain, waiting, other))
    assert first.hash == second.hash != third.hash
    assert (second.delivery_id, second.sync) == ("d1", True)


def test_content_is_kept_verbatim() -> None:
    body = b'{"command":"store_memory","session_id":"s","data":{"content": {"z":1e23, "a":-0.0}}}'
    command = parse_envelope(body).command
    assert isinstance(command, StoreMemory)
    assert bytes(command.content) == b'{"z":1e23, "a":-0.0}'


def test_a_flat_command_is_the_same_as_an_enveloped_one() -> None:
    flat = parse_flat("store_memory", b'{"session_id": "walk", "id": "d1", "key": "k", "content": [1]}')
    assert (flat.hash, flat.delivery_id) == (parse("store_memory", key="k", content=[1]).hash, "d1")


def test_an_unknown_field_is_refused_with_a_suggestion() -> None:
    error = refused(b'{"command":"store_memory","session_id":"s","data":{"content":1,"tag":["a"]}}')
    assert (error.code, error.field, error.hint) == ("unknown_field", "data.tag", "Did you mean 'tags'?")


@pytest.mark.parametrize(
    ("command", "fields", "expected", "hint"),
    [
        (
            "store_memory",
            {"session_id": "s", "text": "x"},
            "content",
            "Put it into 'content'.",
        ),
        ("create_session", {"sesion": "s", "title": "T"}, "session_id, id, title", "Did you mean 'session_id'?"),
        (
            "add_artifact",
            {"session_id": "s", "name": "n", "content": 1, "mood": 1},
            "",
            "Put it into 'metadata'.",
        ),
        ("pause_session", {"session_id": "s", "mood": 1}, "session_id, id", STORE_IT),
        ("list_sessions", {"mood": 1}, "id, ", "Leave it out."),
    ],
)
def test_an_unknown_field_gets_a_helpful_hint(command: str, fields: dict[str, Any], expected: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_flat(command, json.dumps(fields).encode())
    assert caught.value.hint == hint
    assert expected in (caught.value.expected or "")


def test_an_unknown_field_deep_in_a_batch_is_named_by_its_path() -> None:
    item = {"command": "conversation_chunk", "data": {"content": "x", "extracted_items": {"idea": []}}}
    error = refused(json.dumps({"command": "batch", "session_id": "s", "data": {"commands": [item]}}).encode())
    assert error.field == "data.commands[0].data.extracted_items.idea"
    assert error.hint == "Did you mean 'ideas'?"


def test_an_unknown_command_lists_the_valid_ones() -> None:
    error = refused(b'{"command":"store_memori","session_id":"s"}')
    assert error.code == "unknown_command"
    assert all(name in str(error.expected) for name in COMMANDS)
    assert error.hint == "Did you mean 'store_memory'?"


def test_an_invalid_choice_lists_the_valid_ones() -> None:
    error = refused(b'{"command":"store_memory","session_id":"s","data":{"content":1,"type":"thought"}}')
    assert error.field == "data.type"
    assert "decision" in str(error.expected)


@pytest.mark.parametrize("value", [[], [{}], "{", "[]", "text", 1, False])
@pytest.mark.parametrize(
    ("command", "field", "data"),
    [
        ("conversation_chunk", "metadata", {"content": "hello"}),
        ("add_artifact", "metadata", {"name": "a", "content": 1}),
        ("delegate_task", "input_data", {"description": "look"}),
    ],
)
def test_object_fields_accept_only_objects(command: str, field: str, data: dict[str, Any], value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        parse(command, **data, **{field: value})
    assert (caught.value.field, caught.value.expected) == (f"data.{field}", "a JSON object")
    assert parse(command, **data, **{field: {"a": [1]}})


def test_a_string_is_not_split_into_a_list() -> None:
    command = parse("store_memory", content=1, tags="abc").command
    assert isinstance(command, StoreMemory)
    assert command.tags == ["abc"]
    error = refused(b'{"command":"store_memory","session_id":"s","data":{"content":1,"tags":7}}')
    assert (error.field, error.expected) == ("data.tags", "array | null")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not_json"),
        (b"{", 400, "not_json"),
        (b"[]", 400, "not_an_object"),
        (b'"text"', 400, "not_an_object"),
        (b"\xff\xfe", 400, "not_json"),
        (b'{"command":"store_memory","data":{"content":NaN}}', 400, "not_json"),
        (b'{"command":"store_memory","data":{"content":"\\ud800"}}', 400, "not_json"),
        (b'{"command":"store_memory","session_id":"s","data":{"content":"a\\u0000b"}}', 422, "invalid"),
        (b'{"command":"store_memory","session_id":"s","data":{"content":{"a\\u0000b":1}}}', 422, "invalid"),
        (b'{"command":"store_memory","session_id":"s","data":{"content":1e999}}', 422, "invalid"),
        (b'{"command":"x","data":{"content":' + b"9" * 6000 + b"}}", 422, "invalid"),
        (b'{"command":"x","data":{"content":-0.' + b"9" * 6000 + b"}}", 422, "invalid"),
        (b'{"command":"x","data":' + b"[" * 5000 + b"]" * 5000 + b"}", 422, "invalid"),
        (b'{"command":"x","data":' + b'{"a":' * 150 + b"1" + b"}" * 150 + b"}", 422, "invalid"),
        (b'{"command":"pause_session","session_id":"../etc/passwd"}', 422, "invalid_field"),
        (b'{"command":"pause_session","session_id":"a\\n"}', 422, "invalid_field"),
        (b'{"command":"pause_session","session_id":""}', 422, "invalid_field"),
        (b'{"command":"pause_session","session_id":7}', 422, "invalid_field"),
        (b'{"command":"pause_session"}', 422, "missing_field"),
        (b'{"command":"pause_session","session_id":"s","type":"ping"}', 422, "not_a_command"),
        (b'{"command":"pause_session","session_id":"s","id":"a/b"}', 422, "invalid_field"),
        (b'{"command":"pause_session","session_id":"s","data":[]}', 422, "invalid"),
        (b'{"command":"pause_session","session_id":"s","data":{"x":1}}', 422, "unknown_field"),
        (b'{"command":"batch","session_id":"s","data":{"commands":[]}}', 422, "invalid_field"),
        (b'{"command":"batch","session_id":"s","data":{"commands":"abc"}}', 422, "invalid_field"),
        (b'{"command":"batch","session_id":"s","data":{"commands":[7]}}', 422, "invalid"),
        (b'{"command":"batch","session_id":"s","data":{"commands":[{"command":"batch"}]}}', 422, "invalid"),
    ],
)
def test_bad_input_is_refused(body: bytes, status: int, code: str) -> None:
    error = refused(body)
    assert (error.status, error.code) == (status, code)
    assert error.message


@pytest.mark.parametrize("number", ["1e-99999999999999999999", "-0.5E-99999999999999999999", "0e99999999999999999999"])
def test_a_number_with_an_extreme_exponent_is_content(number: str) -> None:
    submission = parse_flat(
        "store_memory", b'{"session_id":"s","content":[12345678901234567890.5,%b]}' % number.encode()
    )
    assert submission.hash
    assert same_json(b"[%b]" % number.encode(), b"[%b, 0]" % number.encode()) is False


@pytest.mark.parametrize(
    ("content", "is_taken"),
    [
        (b"[" * 97 + b"1" + b"]" * 97, True),
        (b"[" * 99 + b"1" + b"]" * 99, False),
        (b'{"a":' * 97 + b"1" + b"}" * 97, True),
        (b'{"a":' * 99 + b"1" + b"}" * 99, False),
        (b"[" + b"[{}]," * 500 + b"[]]", True),
        (b'"' + b"[{" * 500 + b'"', True),
        (b'["\\\\",' * 99 + b"1" + b"]" * 99, False),
        (rb'"a\\u0000"', True),
        (rb'"a\\\u0000"', False),
        (rb'["\n\u0041\u00001"]', False),
        (rb'["\\\\u0000", "\u0001"]', True),
        (rb'{"\u0000": 1}', False),
    ],
)
def test_nesting_and_nul_are_told_apart_from_similar_text(content: bytes, is_taken: bool) -> None:
    body = b'{"command":"store_memory","session_id":"s","data":{"content":' + content + b"}}"
    if is_taken:
        assert parse_envelope(body)
    else:
        assert isinstance(refused(body), Invalid)


def test_numbers_in_text_may_be_long() -> None:
    assert parse("store_memory", content="9" * 6000).session_id == "walk"


def test_a_batch_has_at_most_500_commands() -> None:
    with pytest.raises(Invalid) as caught:
        parse("batch", commands=[{"command": "pause_session"}] * 501)
    assert caught.value.field == "data.commands"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from([*COMMANDS, "append_conversation", "nonsense"]), st.dictionaries(st.text(max_size=12), JSON))
def test_any_data_is_accepted_or_refused(command: str, data: dict[str, Any]) -> None:
    """Any JSON leads to a submission or to a rejection with a message."""
    try:
        submission = parse(command, **data)
    except Rejected as error:
        assert 400 <= error.status < 500
        assert error.message
    else:
        assert submission.hash == parse(command, **data).hash


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(body: bytes) -> None:
    with pytest.raises((Invalid, NotJson)):
        parse_envelope(body)


@given(JSON)
def test_any_json_can_be_content(content: Any) -> None:
    try:
        command = parse("store_memory", content=content).command
    except Rejected as error:
        assert error.code == "invalid"
    else:
        assert isinstance(command, StoreMemory)
        assert json.loads(bytes(command.content)) == content
