"""Sessions as documents: exported from one store and imported into the other without changes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from models.errors import Conflict, Invalid, NotFound, Rejected
from models.settings import read_settings
from sessions.backend import Backend
from sessions.files.backend import FilesBackend
from sessions.postgres.backend import PostgresBackend
from tests.support.project import IS_LONG
from tests.support.stores.sending import SESSION, export, items, send

VERBATIM = '{"z": 1e23,\n\t"a": -0.0, "ü": "\\u00fc", "n": 1.50, "big": 12345678901234567890123}'
"""JSON as a sender might write it, with line breaks and tabs."""


def fill(backend: Backend, session_id: str = SESSION) -> None:
    """Create a session with one item of each kind."""

    def say(command: str, **data: Any) -> dict[str, Any]:
        return send(backend, command, session_id, **data)

    say("create_session", title="Morning walk 🌍", participants=["Ada", "Jörg"], context='On "foot"\n\x01')
    say(
        "conversation_chunk",
        chunk_id="c1",
        content="Ada: hello\x7f\u2028 数据",
        start_time="2026-01-01T10:00:00+02:00",
        extracted_items={"ideas": ["solar", Raw(VERBATIM.encode())]},
        metadata=Raw(VERBATIM.encode()),
    )
    say("conversation_chunk", chunk_id="c0", content="second", format="transcript")
    for content in (Raw(VERBATIM.encode()), None, "text", Raw(b"[ 1,\r\n 2 ]")):
        say("store_memory", key="plan", type="decision", content=content, tags=["Ä", "db"])
    say("store_memory", key="Ältestes", content=0.1, status="done")
    say("delegate_task", task_id="t2", description="Compare prices", agent_name="codex", priority=-7)
    say("delegate_task", task_id="t1", description="Then write", depends_on=["t2"], not_before="2030-01-01")
    say("delegate_task", description="Never mind", input_data=Raw(VERBATIM.encode()))
    say("cancel_task", task_id="t1", reason="no")
    say("add_artifact", artifact_id="a1", name="main.py", type="code", format="python", content="x\n", task_id="t2")
    say("add_artifact", name="Daten", content=Raw(VERBATIM.encode()), metadata={"m": 1})
    with pytest.raises(NotFound):
        say("cancel_task", task_id="none")
    say("get_task", task_id="t1")


def take(backend: Backend, document: bytes) -> bool:
    imported = backend.import_document(BytesIO(document))
    return imported.created


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A session with one item of each kind, from a store that no test has."""
    store = FilesBackend(read_settings({"DATA_DIR": str(tmp_path_factory.mktemp("filled")), "EMBEDDINGS": "off"}))
    fill(store)
    return export(store)


def test_a_session_goes_through_both_stores_unchanged(
    in_files: FilesBackend, in_postgres: PostgresBackend, tmp_path: Any
) -> None:
    fill(in_files)
    document = export(in_files)
    for part in (VERBATIM, '"content":null', '"content":[ 1,\r\n 2 ]', '"status":"rejected"', '"shown_at":"20'):
        assert part.encode() in document
    assert take(in_postgres, document)
    assert export(in_postgres) == document
    third = FilesBackend(read_settings({"DATA_DIR": str(tmp_path / "third"), "EMBEDDINGS": "off"}))
    assert take(third, export(in_postgres))
    assert export(third) == document
    for question in ({"q": "hello"}, {"q": "solar"}, {"q": "数据"}):
        assert {item["at"] for item in items(in_postgres, "search", **question)}
        assert [hit["at"] for hit in items(in_postgres, "search", **question)] == [
            hit["at"] for hit in items(third, "search", **question)
        ]
    assert [task["task_id"] for task in items(third, "list_tasks")] == [
        task["task_id"] for task in items(in_files, "list_tasks")
    ]
    markdown = [b"".join(backend.export(SESSION, format="markdown")) for backend in (in_files, in_postgres, third)]
    assert markdown[0] == markdown[1] == markdown[2]
    for backend in (in_postgres, third):
        assert send(backend, "store_memory", key="plan", content="fifth")["revision"] == 5
        assert send(backend, "delegate_task", description="never  MIND")["created"] is True
        assert (
            len(
                backend.page(
                    "read_conversation", {"limit": 10, "cursor": None, "max_characters": 9_000}, session_id=SESSION
                ).items
            )
            == 2
        )


def test_an_import_of_the_same_document_is_a_repeat(backend: Backend) -> None:
    fill(backend)
    document = export(backend)
    assert take(backend, document) is False
    send(backend, "store_memory", key="more", content=1)
    changed = export(backend)
    with pytest.raises(Conflict) as refused:
        take(backend, document)
    assert (refused.value.code, refused.value.field) == ("session_exists", "session.session_id")
    assert export(backend) == changed
    send(backend, "delete_session", confirm=SESSION)
    assert take(backend, document) is True
    assert export(backend) == document


def test_a_reformatted_document_is_the_same(backend: Backend) -> None:
    send(backend, "create_session", title="Plain")
    send(backend, "store_memory", key="k", content={"b": 1, "a": [1, 2]})
    document = export(backend)
    pretty = msgspec.json.format(document, indent=4)
    reordered = msgspec.json.encode(dict(reversed(msgspec.json.decode(document).items())))
    assert take(backend, reordered) is False
    send(backend, "delete_session", confirm=SESSION)
    assert take(backend, pretty) is True


def test_all_sessions_of_a_store_are_imported_into_the_other_oldest_first(
    in_files: FilesBackend, in_postgres: PostgresBackend
) -> None:
    for name in ("b", "a", "c"):
        fill(in_files, name)
    assert list(in_files.session_ids()) == ["b", "a", "c"]
    documents = [export(in_files, name) for name in in_files.session_ids()]
    for created in (True, False):
        assert [take(in_postgres, document) for document in documents] == [created] * 3
    assert list(in_postgres.session_ids()) == ["b", "a", "c"]
    assert [export(in_postgres, name) for name in in_postgres.session_ids()] == documents


def broken(document: dict[str, Any], path: str, value: Any) -> bytes:
    """Return the document with another value at the path, or without it for None."""
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return msgspec.json.encode(document)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("format", "session-relay/9", "format"),
        ("format", ..., "format"),
        ("extra", 1, "extra"),
        ("session", None, "session"),
        ("session.session_id", "../x", "session.session_id"),
        ("session.title", "", "session.title"),
        ("session.title", "two\nlines", "session.title"),
        ("session.status", "open", "session.status"),
        ("session.status", "completed", "session.completed_at"),
        ("session.created_at", "2026-01-01", "session.created_at"),
        ("session.created_at", "2026-01-01T00:00:00", "session.created_at"),
        ("session.created_at", "2026-01-01T00:00:00+02:00", "session.created_at"),
        ("session.claim_token", "x", "session.claim_token"),
        ("session.participants", ["A\u030a"], "session.participants"),
        ("chunks.0.content", "", "chunks[0].content"),
        ("chunks.0.content", "a\0b", "chunks[0]"),
        ("chunks.1.chunk_id", "c1", "chunks[1].chunk_id"),
        ("chunks.0.extracted_items", {"thoughts": []}, "chunks[0].extracted_items.thoughts"),
        ("chunks.0.metadata", ..., "chunks[0].metadata"),
        ("chunks.0.metadata", [1], "chunks[0].metadata"),
        ("artifacts.0.metadata", "x", "artifacts[0].metadata"),
        ("tasks.0.input_data", 1, "tasks[0].input_data"),
        ("memories.0.key", "x" * 257, "memories[0].key"),
        ("memories.0.tags", ["", "x"], "memories[0].tags[0]"),
        ("memories.0.revision", 0, "memories[0].revision"),
        ("memories.1.chunk_id", "c9", "memories[1].chunk_id"),
        ("memories.2.revisions.0.revision", 2, "memories[2].revisions[1].revision"),
        ("memories.2.revisions.0.key", "other", "memories[2].revisions[0].key"),
        ("memories.2.revisions.1.updated_at", "2026-01-01T00:00:00+01:00", "memories[2].revisions[1].updated_at"),
        ("tasks.0.priority", 5_000, "tasks[0].priority"),
        ("tasks.0.status", "claimed", "tasks[0].lease_expires_at"),
        ("tasks.0.status", "failed", "tasks[0].finished_at"),
        ("tasks.0.questions", [{"asked_at": "2026-01-01T00:00:00Z"}], "tasks[0].questions[0].question"),
        ("tasks.0.claim_token", "x", "tasks[0].claim_token"),
        ("tasks.1.depends_on", ["t2", "t8"], "tasks[1].depends_on[1]"),
        ("tasks.0.depends_on", ["t1"], "tasks[0].depends_on"),
        ("artifacts.0.task_id", "t8", "artifacts[0].task_id"),
        ("artifacts.1.content", float("1e300"), None),
        ("artifacts.0.type", "<b>", "artifacts[0].type"),
        ("events.0.status", "done", "events[0].status"),
        ("events.0.at", None, "events[0].at"),
        ("events", {}, "events"),
    ],
)
def test_an_invalid_field_is_named_and_nothing_is_imported(
    backend: Backend, document: bytes, path: str, value: Any, field: str | None
) -> None:
    body = broken(msgspec.json.decode(document), path, value)
    if field is None:
        assert take(backend, body)
        return
    with pytest.raises(Invalid) as refused:
        take(backend, body)
    assert refused.value.field == field
    assert list(backend.session_ids()) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b'{"format"', b"\xff\xfe", b'{"format": "session-relay/1"}', b"[" * 100_000, b'"text"', b"null"],
)
def test_an_invalid_document_is_refused(backend: Backend, body: bytes) -> None:
    with pytest.raises(Rejected):
        take(backend, body)


@pytest.mark.parametrize("content", ["[" * 200 + "]" * 200, "1" * 101, '"\\u0000"', "1e999"])
def test_json_has_the_same_limits_as_in_commands(backend: Backend, content: str) -> None:
    send(backend, "create_session", title="x")
    send(backend, "store_memory", key="k", content="PLACE")
    document = export(backend).replace(b'"PLACE"', content.encode())
    send(backend, "delete_session", confirm=SESSION)
    with pytest.raises(Invalid) as refused:
        take(backend, document)
    assert (refused.value.field or "").startswith("memories[0]")


def test_a_claimed_task_stays_claimed_until_its_lease_expires(
    in_files: FilesBackend, in_postgres: PostgresBackend
) -> None:
    fill(in_files)
    document = msgspec.json.decode(export(in_files))
    held = {"status": "claimed", "claimed_by": "laptop", "attempt": 1}
    times = {"claimed_at": "2026-01-01T00:00:00Z", "lease_expires_at": "2026-01-01T00:01:00Z"}
    document["tasks"][0] |= held | times
    send(in_files, "delete_session", confirm=SESSION)
    for backend in (in_files, in_postgres):
        assert take(backend, msgspec.json.encode(document))
        assert send(backend, "get_task", task_id="t2")["task"]["claimed_by"] == "laptop"
    assert export(in_files).split(b'"shown_at"')[0] == export(in_postgres).split(b'"shown_at"')[0]


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
json_texts = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(characters, max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(characters, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
).map(msgspec.json.encode)
blanks = st.sampled_from(["", " ", "\n", "\t", "\r\n", " \t \n", "\t\t ", "\t \t"])


@settings(
    max_examples=100 if IS_LONG else 20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    contents=st.lists(st.tuples(blanks, json_texts, blanks), min_size=1, max_size=5),
    text=st.text(characters, min_size=1),
    context=st.text(characters),
)
def test_any_content_is_returned_byte_for_byte(
    in_files: FilesBackend,
    in_postgres: PostgresBackend,
    contents: list[tuple[str, bytes, str]],
    text: str,
    context: str,
) -> None:
    both = (in_files, in_postgres)
    for backend in both:
        if SESSION in list(backend.session_ids()):
            send(backend, "delete_session", confirm=SESSION)
    send(in_files, "create_session", title="x", context=context)
    send(in_files, "conversation_chunk", content=text, chunk_id="c")
    given_texts = [b"[" + before.encode() + value + after.encode() + b"]" for before, value, after in contents]
    for number, content in enumerate(given_texts):
        send(in_files, "store_memory", key=f"k{number}", content=Raw(content))
        send(
            in_files,
            "add_artifact",
            name="n",
            artifact_id=f"a{number}",
            content=Raw(content),
            metadata={"m": Raw(content)},
        )
    document = export(in_files)
    assert all(document.count(content) >= 3 for content in given_texts)
    assert take(in_postgres, document) is True
    assert export(in_postgres) == document
    assert take(in_files, export(in_postgres)) is False
