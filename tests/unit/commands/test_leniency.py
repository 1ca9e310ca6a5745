"""Loose spellings of clients: JSON as text, null for omitted fields, numbers as text; and errors that list all
faults."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.mcp.tools import ClaimTask, ReportTask, SendCommand
from api.tasks.claims import ClaimRequest, CompleteRequest
from models.commands.definitions import COMMANDS, name_of
from models.commands.lenient_decoding import MAX_PROBLEMS, decode_leniently
from models.commands.payloads import Submission, parse_envelope, parse_flat
from models.errors import Invalid, Rejected

SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("query_memories", {"limit": 5, "tags": ["a", "b c"]}, {"limit": "5", "tags": "a, b c,"}),
    ("query_memories", {"limit": 5}, {"limit": 5.0, "tags": None, "type": None, "since": None, "timezone": None}),
    ("query_memories", {"tags": ["a", "b"]}, {"tags": '["a", "b"]', "limit": " 10.0 "}),
    ("search", {"q": "x", "in": ["memories", "artifacts"]}, {"q": "x", "in": "memories,artifacts"}),
    ("get_task", {"task_id": "t", "wait": 2.5}, {"task_id": "t", "wait": "2.5", "offset": "0"}),
    (
        "delegate_task",
        {"description": "d", "depends_on": ["t1", "t2"], "allow_duplicate": True, "input_data": {"a": None}},
        {"description": "d", "depends_on": "t1,t2", "allow_duplicate": "true", "input_data": '{"a": null}'},
    ),
    (
        "delegate_task",
        {"description": "d"},
        {"description": "d", "input_data": None, "priority": None, "max_attempts": None, "not_before": None},
    ),
    (
        "conversation_chunk",
        {"content": "c", "extracted_items": {"ideas": ["x, y"], "facts": [1]}, "participants": ["Ann", "Bob"]},
        {
            "content": "c",
            "extracted_items": '{"ideas": "x, y", "facts": [1], "notes": null}',
            "participants": "Ann,Bob",
        },
    ),
    ("store_memory", {"content": None}, {"content": None, "type": None, "tags": None, "if_revision": None}),
    ("store_memory", {"content": "5", "if_revision": 0}, {"content": "5", "if_revision": "0"}),
    ("store_memory", {"content": {"a": None}}, {"content": {"a": None}, "status": None}),
    ("add_artifact", {"name": "n", "content": '{"a":1}'}, {"name": "n", "content": '{"a":1}', "metadata": None}),
    (
        "batch",
        {"commands": [{"command": "store_memory", "data": {"key": "k", "content": 1, "tags": ["a"]}}]},
        {"commands": [{"command": "store_memory", "data": '{"key": "k", "content": 1, "tags": "a"}'}], "mode": None},
    ),
    (
        "batch",
        {"commands": [{"command": "pause_session"}, {"command": "get_task", "data": {"task_id": "t", "offset": 5}}]},
        {"commands": '[{"command":"pause_session"},{"command":"get_task","data":{"task_id":"t","offset":5.0}}]'},
    ),
]


def envelope(command: str, data: Any, **outside: Any) -> Submission:
    return parse_envelope(json.dumps({"command": command, "session_id": "s", "data": data, **outside}).encode())


def flat(command: str, data: dict[str, Any]) -> Submission:
    session = {} if COMMANDS[command].session == "none" else {"session_id": "s"}
    return parse_flat(command, json.dumps({**session, **data}).encode())


def refused(command: str, /, **data: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse_flat(command, json.dumps(data).encode())
    return caught.value


@pytest.mark.parametrize(("command", "plain", "loose"), SPELLINGS)
def test_another_spelling_is_the_same_command_with_the_same_hash(
    command: str, plain: dict[str, Any], loose: dict[str, Any]
) -> None:
    strict = envelope(command, plain)
    for submission in (envelope(command, loose), envelope(command, json.dumps(loose)), flat(command, loose)):
        assert submission.command == strict.command
        assert submission.hash == strict.hash


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_null_means_omitted_for_each_optional_field(command: str) -> None:
    given = {
        "title": "T", "content": "c", "description": "d", "name": "n", "task_id": "t", "key": "k", "q": "q",
        "confirm": "s", "answer": "a", "artifact_id": "a", "commands": [{"command": "pause_session"}],
    }  # fmt: skip
    fields = {field.encode_name: field for field in msgspec.structs.fields(COMMANDS[command])}
    # The content of a memory may be omitted only along with other fields, and null is a content.
    needed = {name: given[name] for name, field in fields.items() if field.required or name == "content"}
    nulls = dict.fromkeys(fields.keys() - needed.keys()) | {"id": None}
    assert flat(command, needed | nulls).hash == flat(command, needed).hash


def test_null_within_free_json_is_kept() -> None:
    submission = flat("add_artifact", {"name": "n", "content": None, "metadata": {"a": None}, "format": None})
    assert (bytes(submission.command.content), bytes(submission.command.metadata)) == (b"null", b'{"a": null}')  # type: ignore[attr-defined]


def test_a_body_that_is_json_as_text_is_accepted() -> None:
    body = {"command": "store_memory", "session_id": "s", "data": {"content": 1, "key": "k"}}
    assert parse_envelope(json.dumps(json.dumps(body)).encode()).hash == envelope("store_memory", body["data"]).hash
    for text in ("text", "7", "[]", "{", ""):
        with pytest.raises(Rejected) as caught:
            parse_envelope(json.dumps(text).encode())
        assert caught.value.code == "not_an_object"


def test_the_envelope_may_be_spelled_loosely() -> None:
    loose = envelope("pause_session", None, sync="true", feedback_mode=None, id=None, type=None)
    assert (name_of(loose.command), loose.sync, loose.delivery_id) == ("pause_session", True, None)


@pytest.mark.parametrize("data", [[], [{"task_id": "t"}], "text", "[1]", '"{}"', 7, True])
def test_data_that_is_not_an_object_is_refused_by_name(data: Any) -> None:
    with pytest.raises(Invalid) as caught:
        envelope("get_task", data)
    assert (caught.value.field, caught.value.expected) == ("data", "a JSON object")


@pytest.mark.parametrize("text", ["a\\u0000b", "9" * 101, "1e999", "[" * 101 + "]" * 101])
def test_json_as_text_is_validated(text: str) -> None:
    inner = '{"a": ' + (f'"{text}"' if "u0000" in text else text) + "}"
    with pytest.raises(Invalid):
        flat("delegate_task", {"description": "d", "input_data": inner})


@pytest.mark.parametrize(
    ("shape", "loose", "plain"),
    [
        (ClaimRequest, {"agent_name": "a", "wait": "5", "task_types": "code,research", "worker": None},
         {"agent_name": "a", "wait": 5, "task_types": ["code", "research"]}),
        (ClaimTask, {"agent_name": "a", "lease_seconds": 60.0, "task_types": None, "wait": None},
         {"agent_name": "a", "lease_seconds": 60}),
        (CompleteRequest, {"output": None, "artifacts": None}, {}),
        (CompleteRequest, {"output": "[1]", "artifacts": '[{"name": "n", "content": null, "metadata": null}]'},
         {"output": "[1]", "artifacts": [{"name": "n", "content": None}]}),
        (ReportTask, {"claim_token": "c", "status": "failed", "error": "e", "retryable": "TRUE", "percent": "5"},
         {"claim_token": "c", "status": "failed", "error": "e", "retryable": True, "percent": 5}),
        (SendCommand, {"command": "c", "session_id": None, "data": {"a": 1}}, {"command": "c", "data": {"a": 1}}),
    ],
)  # fmt: skip
def test_claims_and_tool_calls_may_be_spelled_loosely(shape: Any, loose: Any, plain: Any) -> None:
    assert decode_leniently(json.dumps(loose).encode(), shape) == msgspec.json.decode(json.dumps(plain), type=shape)


def test_all_faults_are_reported_at_once() -> None:
    error = refused("delegate_task", priority="high", since="7d", depends_on=[7], not_before="whenever")
    told = {problem["field"]: problem["message"] for problem in error.problems}
    assert set(told) == {"session_id", "description", "priority", "since", "depends_on[0]", "not_before"}
    assert error.field == error.problems[0]["field"]
    assert error.body()["problems"] == error.problems
    assert len(error.message) <= 200
    assert "5 more" in error.message or all(field in error.message for field in told)


def test_a_single_fault_is_reported_alone() -> None:
    error = refused("get_task", session_id="s")
    assert (error.field, error.problems, "problems" in error.body()) == ("task_id", [], False)


def test_nested_faults_are_reported_with_their_paths() -> None:
    items = [
        {"command": "store_memory", "data": {"tags": [1], "typ": "idea"}},
        {"command": "get_task", "data": {"task_id": "t"}},
        {"command": "nonsense"},
        {"command": "conversation_chunk", "data": {"content": "c", "extracted_items": {"ideas": 7, "idea": []}}},
    ]
    with pytest.raises(Invalid) as caught:
        envelope("batch", {"commands": items})
    fields = {problem["field"] for problem in caught.value.problems}
    assert fields == {
        "data.commands[0].data.typ", "data.commands[0].data.content", "data.commands[0].data.tags[0]",
        "data.commands[2].command", "data.commands[3].data.extracted_items.ideas",
        "data.commands[3].data.extracted_items.idea",
    }  # fmt: skip


def test_the_list_of_faults_is_bounded() -> None:
    error = refused("get_task", session_id="s", **{f"x{n}{'y' * 100}": n for n in range(5_000)})
    assert len(error.problems) == MAX_PROBLEMS
    assert len(json.dumps(error.body())) < 10_000


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_any_value_in_any_field_is_accepted_or_refused_by_name(command: str) -> None:
    values: tuple[Any, ...] = (None, True, 7, 7.5, "x", "", "{}", "[]", [], {}, [None], [{}], "5", "1e400", "null")
    for value in values:
        data = {field.encode_name: value for field in msgspec.structs.fields(COMMANDS[command])}
        try:
            flat(command, data)
        except Rejected as error:
            assert error.code != "internal"
            assert error.message


@pytest.mark.parametrize(
    ("command", "fields", "hint"),
    [
        ("store_memory", {"content": "x", "text": "y"}, "Put it into 'content'"),
        ("store_memory", {"content": "x", "importance": 5}, "Put it into 'content'"),
        ("conversation_chunk", {"content": "x", "mood": "glad"}, "Put it into 'metadata'"),
        ("complete_session", {"summary": "All went well."}, "store_memory"),
        ("answer_task", {"task_id": "t", "answer": "a", "notes": "n"}, "Put it into 'answer'"),
        ("delegate_task", {"description": "d", "repository": "r"}, "Put it into 'input_data'"),
    ],
)
def test_content_in_the_wrong_place_gets_a_hint_to_move_it(command: str, fields: dict[str, Any], hint: str) -> None:
    error = refused(command, session_id="s", **fields)
    assert hint in str(error.hint)
    assert "eave it out" not in str(error.hint)


def test_fields_beside_data_get_a_hint_to_move_them() -> None:
    with pytest.raises(Invalid) as caught:
        parse_envelope(b'{"command": "get_task", "session_id": "s", "task_id": "t"}')
    assert caught.value.hint == "Put it into 'data'."
