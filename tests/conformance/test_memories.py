"""Memories as to-dos in each store: when they are due, what is open, changes without content, completed sessions."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec
import pytest

from models.errors import Invalid, NotFound
from sessions.backend import Backend
from tests.support.stores.sending import SESSION, export, items, memory, refusal, send

DUE = {"friday": "2026-03-13", "noon": "2026-03-14T12:00+01:00", "saturday": "2026-03-14", "late": "2026-03-14T23:30Z"}


@pytest.fixture
def dated(walk: Backend) -> Backend:
    """A session with four action items that are due, and one that is not."""
    for key, due in DUE.items():
        send(walk, "store_memory", key=key, content=key, type="action_item", due=due)
    send(walk, "store_memory", key="someday", content="someday", type="action_item")
    return walk


def keys(backend: Backend, session_id: str | None = SESSION, /, **data: Any) -> list[str]:
    return [item["key"] for item in items(backend, "query_memories", session_id, **data)]


def test_a_memory_is_due_on_a_date_or_at_a_time_in_utc(dated: Backend) -> None:
    assert [memory(dated, key).get("due") for key in (*DUE, "someday")] == [
        *("2026-03-13", "2026-03-14T11:00:00Z", "2026-03-14", "2026-03-14T23:30:00Z"),
        None,
    ]
    assert send(dated, "store_memory", key="friday", due="2026-03-20")["due"] == "2026-03-20"
    assert memory(dated, "friday", revision=1)["due"] == "2026-03-13"
    assert memory(dated, "friday")["content"] == "friday"
    assert "due" not in send(dated, "store_memory", key="friday", due="")
    assert "due" not in memory(dated, "friday")
    assert send(dated, "store_memory", key="noon", content="At noon")["due"] == "2026-03-14T11:00:00Z"
    for wrong in ("Friday", "2026-02-30", "3d", "2026-03-14T25:00"):
        assert refusal(dated, "store_memory", key="friday", due=wrong).field == "data.due"


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"sort": "due"}, ["friday", "saturday", "noon", "late", "someday"]),
        ({"due_before": "2026-03-14"}, ["friday", "saturday", "noon", "late"]),
        ({"due_before": "2026-03-14", "timezone": "Asia/Tokyo"}, ["friday", "saturday", "noon"]),
        ({"due_before": "2026-03-13"}, ["friday"]),
        ({"due_before": "2026-03-14T11:00Z"}, ["friday", "saturday"]),
        ({"due_after": "2026-03-14"}, ["saturday", "noon", "late"]),
        ({"due_after": "2026-03-14T11:00Z"}, ["saturday", "noon", "late"]),
        ({"due_after": "2026-03-14T12:00", "due_before": "2026-03-14"}, ["saturday", "late"]),
        ({"due_after": "2026-03-14T12:00", "timezone": "America/New_York"}, ["saturday", "late"]),
        ({"due_after": "2026-03-15"}, []),
        ({"due_before": "2026-03-14", "sort": "updated"}, ["late", "saturday", "noon", "friday"]),
        ({"due_before": "2026-03-14", "status": "open", "type": "question"}, []),
    ],
)
def test_what_is_due_in_a_period_is_found_and_comes_in_order(
    dated: Backend, bounds: dict[str, Any], found: list[str]
) -> None:
    for limit in (1, 10):
        assert keys(dated, limit=limit, **bounds) == found


def test_an_age_is_refused_where_what_is_due_is_ahead(dated: Backend) -> None:
    error = refusal(dated, "query_memories", due_before="7d")
    assert (error.field, error.hint) == ("data.due_before", 'For 7d from now write "in 7d".')
    send(dated, "store_memory", key="soon", content="soon", due="in 2d")
    assert keys(dated, due_before="in 7d", due_after="in 1d") == ["soon"]
    assert refusal(dated, "query_memories", sort="due", cursor="####").field == "cursor"


def test_a_delay_sent_again_is_the_same_time(walk: Backend) -> None:
    first = send(walk, "store_memory", key="k", content="x", due="in 2h")
    again = send(walk, "store_memory", key="k", content="x", due="in 2h")
    assert (again["due"], again["revision"]) == (first["due"], 1)


def test_a_due_date_in_the_content_counts(walk: Backend) -> None:
    content = {"what": "Call the landlord", "due": "2026-03-14"}
    assert send(walk, "store_memory", key="call", type="action_item", content=content)["due"] == "2026-03-14"
    assert send(walk, "store_memory", key="call", content=content | {"due": "2026-03-21"})["due"] == "2026-03-21"
    assert send(walk, "store_memory", key="call", content=content, due="2026-04-01")["due"] == "2026-04-01"
    assert send(walk, "store_memory", key="call", content=content)["due"] == "2026-04-01"
    assert send(walk, "store_memory", key="call", content="Call")["due"] == "2026-04-01"
    for vague in ("Friday", "in 2d", "2d", "", None, 7, {"at": "2026-03-14"}, "2026-02-30"):
        assert "due" not in send(walk, "store_memory", content={"what": "x", "due": vague})
    found = {"action_items": [{"what": "Buy soil", "due": "2026-05-01"}, "Sow"], "questions": []}
    send(walk, "conversation_chunk", content="Ada: soil.", extracted_items=found)
    assert [item["content"]["what"] for item in items(walk, "query_memories", due_after="2026-05-01")] == ["Buy soil"]


def test_only_questions_and_action_items_are_open(walk: Backend) -> None:
    kinds = ("idea", "decision", "question", "action_item", "context", "preference", "fact", "risk", "note", "general")
    for kind in kinds:
        send(walk, "store_memory", key=kind, content=kind, type=kind)
    assert keys(walk, status="open") == ["action_item", "question"]
    shown = {item["key"]: item.get("status") for item in items(walk, "list_memories", SESSION)}
    assert shown == dict.fromkeys(kinds) | {"question": "open", "action_item": "open"}
    assert keys(walk, status="open", type="decision") == ["decision"]
    told = {item["key"]: item.get("status") for item in items(walk, "recent_activity", SESSION) if "key" in item}
    assert told == shown
    assert send(walk, "store_memory", key="fact", content="Other") == {
        "key": "fact",
        "type": "fact",
        "revision": 2,
        "created": False,
        "outcome": "revised",
    }
    for kind in ("fact", "question"):
        assert send(walk, "store_memory", key=kind, status="superseded")["status"] == "superseded"
    assert keys(walk, status="superseded") == ["question", "fact"]
    assert keys(walk, status="open", type="fact") == []
    assert send(walk, "store_memory", key="fact", status="open")["outcome"] == "reopened"
    assert "status" not in memory(walk, "fact")
    document = export(walk)
    send(walk, "delete_session", confirm=SESSION)
    walk.import_document(BytesIO(document))
    assert keys(walk, status="open") == ["action_item"]


def test_a_status_changes_without_the_content(walk: Backend) -> None:
    content = {"what": "Put out the bins", "n": [1.50, 2]}
    send(walk, "store_memory", key="bins", content=content, type="action_item", tags=["home"], due="2026-03-14")
    for command in ("store_memory", "update_memory"):
        done = walk.send(command, {"key": "bins", "status": "done"}, session_id=SESSION)
        expected = {"key": "bins", "type": "action_item", "revision": 2, "created": False, "due": "2026-03-14"}
        changed = {"status": "done"} | ({"outcome": "revised"} if command == "store_memory" else {})
        assert done["data"] == expected | changed
        assert done["command"] == "store_memory"
    found = memory(walk, "bins")
    assert (found["content"], found["tags"], found["status"]) == (content, ["home"], "done")
    assert memory(walk, "bins", revision=1)["status"] == "open"
    assert keys(walk, tags=["home"]) == [item["key"] for item in items(walk, "search", q="bins")] == ["bins"]
    assert send(walk, "store_memory", key="bins", tags=["street"])["status"] == "done"
    assert send(walk, "store_memory", key="bins", status="open", content=None)["outcome"] == "reopened"
    assert memory(walk, "bins")["content"] == content


def test_a_change_without_content_obeys_revisions(walk: Backend) -> None:
    send(walk, "store_memory", key="k", content="x", type="question")
    send(walk, "store_memory", key="k", status="done", if_revision=1)
    error = refusal(walk, "store_memory", key="k", status="superseded", if_revision=1)
    assert (error.code, error.expected) == ("revision_conflict", "2")
    assert memory(walk, "k")["status"] == "done"


def test_a_change_without_content_needs_a_stored_memory(walk: Backend) -> None:
    error = refusal(walk, "store_memory", key="none", status="done")
    assert isinstance(error, NotFound)
    assert (error.code, error.field) == ("memory_not_found", "data.key")
    assert "content" in (error.hint or "")
    for data in ({}, {"key": "k"}, {"status": "done"}, {"tags": ["a"]}, {"key": "k", "type": "note"}):
        error = refusal(walk, "store_memory", **data)
        assert isinstance(error, Invalid)
        assert (error.code, error.field) == ("missing_field", "data.content")
    commands = [
        {"command": "store_memory", "data": {"key": "new", "content": "x", "type": "action_item"}},
        {"command": "update_memory", "data": {"key": "new", "status": "done"}},
    ]
    assert send(walk, "batch", commands=commands)["failed"] == 0
    assert memory(walk, "new")["status"] == "done"


def test_what_is_to_be_done_leaves_out_completed_sessions_unless_asked(walk: Backend) -> None:
    for session_id in ("kitchen", "paused"):
        send(walk, "create_session", session_id, title=session_id)
    for session_id in (SESSION, "kitchen", "paused"):
        send(walk, "store_memory", session_id, key=session_id, content="Paint", type="action_item", due="2026-03-14")
    send(walk, "pause_session", "paused")
    send(walk, "complete_session", "kitchen")
    assert keys(walk, None, status="open") == ["paused", SESSION]
    assert keys(walk, None, status="open", include_completed=True) == ["paused", "kitchen", SESSION]
    assert keys(walk, None, due_before="2026-03-14") == [SESSION, "paused"]
    assert keys(walk, "kitchen", status="open") == ["kitchen"]
    messages = [
        walk.send("query_memories", {"type": "decision", "include_completed": asked}, session_id=None)["message"]
        for asked in (False, True)
    ]
    assert messages == [
        "Found no decisions in all sessions that are not completed.",
        "Found no decisions in all sessions.",
    ]


def test_documents_show_what_is_due(dated: Backend) -> None:
    send(dated, "store_memory", key="saturday", tags=["home"])
    markdown = b"".join(dated.export(SESSION, format="markdown")).decode()
    assert "- [ ] saturday (due 2026-03-14, #home)\n" in markdown
    assert "- [ ] someday\n" in markdown


def test_a_document_without_due_dates_gets_those_of_its_contents(dated: Backend) -> None:
    """Earlier versions exported none."""
    send(dated, "store_memory", key="call", content={"due": "2026-03-14"}, type="action_item")
    send(dated, "store_memory", key="call", due="")
    document = export(dated)
    outline = msgspec.json.decode(document)
    revisions = [revision for memory in outline["memories"] for revision in (memory, *memory["revisions"])]
    assert [revision.pop("due") for revision in revisions if revision["key"] == "call"] == [None, "2026-03-14"]
    send(dated, "delete_session", confirm=SESSION)
    dated.import_document(BytesIO(document))
    assert export(dated) == document
    assert "due" not in memory(dated, "call")
    send(dated, "delete_session", confirm=SESSION)
    dated.import_document(BytesIO(msgspec.json.encode(outline)))
    assert [memory(dated, "call", **which).get("due") for which in ({}, {"revision": 1})] == ["2026-03-14"] * 2
    send(dated, "delete_session", confirm=SESSION)
    for wrong in ("Friday", "2026-02-30", "2026-03-14T12:00"):
        outline["memories"][0]["due"] = wrong
        with pytest.raises(Invalid) as refused:
            dated.import_document(BytesIO(msgspec.json.encode(outline)))
        assert refused.value.field == "memories[0].due"


def test_a_bundle_lists_each_type_and_marks_what_is_superseded(dated: Backend) -> None:
    for key, kind, status in (
        *(("blue", "decision", "superseded"), ("green", "decision", None), ("old", "fact", "superseded")),
        *(("size", "fact", None), ("roof", "idea", None), ("paint", "note", None), ("likes", "preference", None)),
    ):
        send(dated, "store_memory", key=key, content=key, type=kind, status=status)
    send(dated, "store_memory", key="blue", tags=["walls"])
    send(dated, "conversation_chunk", content="Ada: green it is.")
    bundle = send(dated, "resume_bundle")
    order = ("session", "open_questions", "action_items", "decisions", "tasks", "facts", "ideas", "notes")
    assert list(bundle) == [*order, "other_memories", "artifacts", "conversation"]
    assert [(item["key"], item.get("status")) for item in bundle["decisions"]] == [
        ("green", None),
        ("blue", "superseded"),
    ]
    shown = {name: [item["key"] for item in bundle[name]] for name in ("facts", "ideas", "notes", "other_memories")}
    assert shown == {"facts": ["size"], "ideas": ["roof"], "notes": ["paint"], "other_memories": ["likes"]}
    assert [(item["key"], item.get("due")) for item in bundle["action_items"]] == [
        ("friday", "2026-03-13"),
        ("saturday", "2026-03-14"),
        ("noon", "2026-03-14T11:00:00Z"),
        ("late", "2026-03-14T23:30:00Z"),
        ("someday", None),
    ]
    superseded = {item["key"]: item.get("status") for item in items(dated, "list_memories", SESSION)}
    assert (superseded["blue"], superseded["old"]) == ("superseded", "superseded")


def test_a_bundle_is_never_longer_than_asked(walk: Backend) -> None:
    kinds = ("question", "action_item", "decision", "fact", "idea", "note", "risk")
    for start in range(0, 30, 10):
        commands: list[dict[str, Any]] = [
            {"command": "store_memory", "data": {"key": f"{kind} {n}", "type": kind, "content": "word " * 90 * n}}
            for n in range(start, start + 10)
            for kind in kinds
        ]
        commands += [
            {"command": "conversation_chunk", "data": {"content": f"{start} " + '"said\\ ' * 3_000}},
            {"command": "delegate_task", "data": {"task_id": f"t{start}", "description": "do " * 5_000}},
            {"command": "add_artifact", "data": {"artifact_id": f"a{start}", "name": "a", "content": "x\n" * 2_000}},
            {"command": "rename_session", "data": {"title": "T" * 256}},
        ]
        send(walk, "batch", commands=commands)
    for max_characters in (1_000, 2_000, 5_000, 20_000, 90_000):
        bundle = send(walk, "resume_bundle", max_characters=max_characters)
        assert max_characters * 0.75 < len(msgspec.json.encode(bundle)) <= max_characters
