"""Reads from each store: pages, truncation, order, and errors for missing records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.errors import Invalid, NotFound
from sessions.backend import Backend
from tests.support.stores.sending import SESSION, items, pages, refusal, send

LONG = '"\\\n😀数' * 20_000


@pytest.fixture
def walk(backend: Backend) -> Backend:
    """A store with two sessions."""
    send(backend, "create_session", title="Morning walk", participants=["Ada"], context="On foot")
    send(backend, "create_session", "evening", title="Evening")
    return backend


def test_sessions_come_latest_first_and_page_by_page(walk: Backend) -> None:
    for number in range(5):
        send(walk, "create_session", f"s{number}", title=str(number))
    send(walk, "store_memory", "s1", content=1)
    send(walk, "complete_session", "s3")
    ids = [[item["session_id"] for item in page.items] for page in pages(walk, "list_sessions", limit=3)]
    assert ids == [["s3", "s1", "s4"], ["s2", "s0", "evening"], ["walk"]]
    assert [item["session_id"] for item in items(walk, "list_sessions", filter="completed")] == ["s3"]
    assert list(walk.session_ids()) == ["walk", "evening", "s0", "s1", "s2", "s3", "s4"]
    assert send(walk, "list_sessions", None, limit=2)["next_cursor"]


def test_memories_are_filtered_and_paged_over_all_sessions(walk: Backend) -> None:
    for number in range(7):
        session_id = SESSION if number % 2 else "evening"
        kind = "decision" if number < 5 else "idea"
        send(walk, "store_memory", session_id, key=f"k{number}", content=number, type=kind, tags=[f"t{number % 3}"])
    found = [[item["key"] for item in page.items] for page in pages(walk, "query_memories", limit=3)]
    assert found == [["k6", "k5", "k4"], ["k3", "k2", "k1"], ["k0"]]
    assert [item["key"] for item in items(walk, "query_memories", type="idea")] == ["k6", "k5"]
    assert [item["key"] for item in items(walk, "query_memories", tags=["t1", "x"])] == ["k4", "k1"]
    assert [item["session_title"] for item in items(walk, "query_memories", limit=1)][:2] == ["Evening", "Morning walk"]
    assert [item["key"] for item in items(walk, "list_memories", SESSION, limit=2)] == ["k5", "k3", "k1"]
    assert items(walk, "query_memories", until="1h") == []
    assert len(items(walk, "query_memories", since="1h")) == 7
    assert send(walk, "query_memories", SESSION, type="decision")["count"] == 2


def test_paging_lists_memories_of_the_same_moment_once_each(walk: Backend) -> None:
    commands = [{"command": "store_memory", "data": {"key": f"Ä {n:02}", "content": n}} for n in range(20)]
    send(walk, "batch", commands=commands)
    keys = [item["key"] for item in items(walk, "list_memories", SESSION, limit=3)]
    assert keys == [f"Ä {n:02}" for n in reversed(range(20))]


def test_tasks_come_in_claim_order(walk: Backend) -> None:
    for session_id, task_id, priority in (("walk", "a", 0), ("evening", "b", 5), ("walk", "c", 0), ("evening", "d", 5)):
        send(walk, "delegate_task", session_id, task_id=task_id, description=task_id, priority=priority, agent_name="x")
    send(walk, "cancel_task", "walk", task_id="a")
    send(walk, "cancel_task", "evening", task_id="b")
    found = [[item["task_id"] for item in page.items] for page in pages(walk, "list_tasks", limit=1)]
    assert found == [["d"], ["c"], ["b"], ["a"]]
    assert [item["task_id"] for item in items(walk, "list_tasks", SESSION)] == ["c", "a"]
    assert [item["task_id"] for item in items(walk, "list_tasks", status="pending", agent_name="x")] == ["d", "c"]
    assert items(walk, "list_tasks", agent_name="y") == []


def test_artifacts_are_listed_without_content_the_latest_first(walk: Backend) -> None:
    send(walk, "delegate_task", task_id="t1", description="Write")
    send(walk, "add_artifact", artifact_id="one", name="One", content="secret", task_id="t1", metadata={"m": 1})
    send(walk, "add_artifact", "evening", artifact_id="two", name="Two", content="secret", type="code")
    send(walk, "add_artifact", artifact_id="three", name="Three", content="secret")
    found = items(walk, "list_artifacts", limit=1)
    assert [item["artifact_id"] for item in found] == ["three", "two", "one"]
    assert "secret" not in str(found)
    assert [item["artifact_id"] for item in items(walk, "list_artifacts", type="code")] == ["two"]
    [one] = items(walk, "list_artifacts", SESSION, task_id="t1")
    assert (one["metadata"], one["name"]) == ({"m": 1}, "One")


@pytest.mark.parametrize("max_characters", [200, 3_000, 90_000])
def test_a_long_text_can_be_read_to_its_end(walk: Backend, max_characters: int) -> None:
    send(walk, "store_memory", key="long", content=LONG[: max_characters * 2])
    send(walk, "add_artifact", artifact_id="list", name="List", content=list(range(max_characters // 2)))
    for command, key, field in (("retrieve_memory", "key", "memory"), ("get_artifact", "artifact_id", "artifact")):
        wanted = "long" if command == "retrieve_memory" else "list"
        pieces, offset = [], 0
        while True:
            found = send(walk, command, **{key: wanted, "max_characters": max_characters, "offset": offset})[field]
            pieces.append(found["content"])
            if "truncated" not in found:
                break
            offset = found["next_offset"]
        assert len(pieces) > 1
        text = "".join(pieces)
        expected: Any = LONG[: max_characters * 2] if command == "retrieve_memory" else list(range(max_characters // 2))
        assert (text if command == "retrieve_memory" else msgspec.json.decode(text)) == expected


def test_a_transcript_can_be_read_to_its_end_by_cursors(walk: Backend) -> None:
    texts = ["short", LONG, "middle", "x" * 3_000, "end"]
    for number, text in enumerate(texts):
        send(walk, "conversation_chunk", chunk_id=f"c{number}", content=text, participants=["Ada"], metadata={"n": 1})
    read = dict.fromkeys((f"c{number}" for number in range(5)), "")
    cursor = None
    while True:
        page = walk.page(
            "read_conversation", {"limit": 2, "cursor": cursor, "max_characters": 20_000}, session_id=SESSION
        )
        for item in page.items:
            assert item.get("offset", 0) == len(read[item["chunk_id"]])
            read[item["chunk_id"]] += item["content"]
        if (cursor := page.next_cursor) is None:
            break
    assert list(read.values()) == texts
    first = walk.page(
        "read_conversation", {"limit": 1, "cursor": None, "max_characters": 500}, session_id=SESSION
    ).items[0]
    assert (first["participants"], first["metadata"], first["format"]) == (["Ada"], {"n": 1}, "dialogue")
    with pytest.raises(Invalid):
        walk.page("read_conversation", {"limit": 1, "cursor": "####", "max_characters": 500}, session_id=SESSION)
    with pytest.raises(NotFound):
        walk.page("read_conversation", {"limit": 1, "cursor": None, "max_characters": 500}, session_id="none")


def test_a_journal_can_be_followed_from_a_cursor(walk: Backend) -> None:
    for number in range(5):
        send(walk, "store_memory", key=str(number), content=number)
    seen, after = [], None
    while True:
        page = walk.events(SESSION, after=after, limit=2, wait_seconds=0)
        seen += page.items
        assert page.next_cursor is not None
        if not page.items:
            break
        after = page.next_cursor
    assert [event["event"] for event in seen] == ["create_session"] + ["store_memory"] * 5
    assert [event["data"].get("key") for event in seen] == [None, "0", "1", "2", "3", "4"]
    assert walk.events(SESSION, after=seen[3]["cursor"], limit=9, wait_seconds=0).items == seen[4:]
    with pytest.raises(Invalid):
        walk.events(SESSION, after="x", limit=1, wait_seconds=0)


def test_a_bundle_has_what_is_needed_to_continue(walk: Backend) -> None:
    for key, kind, status in (
        *(("q", "question", "open"), ("answered", "question", "done"), ("todo", "action_item", "open")),
        *(("decided", "decision", "open"), ("old", "decision", "superseded"), ("likes", "preference", "open")),
    ):
        send(walk, "store_memory", key=key, content=key, type=kind, status=status)
    send(walk, "delegate_task", task_id="t1", description="Compare")
    send(walk, "add_artifact", name="Report", content="# Report\n" + "x" * 2_000)
    for text in ("first", "second"):
        send(walk, "conversation_chunk", content=text)
    for session_id in (SESSION, None):
        bundle = send(walk, "resume_bundle", session_id)
        assert (bundle["session"]["title"], bundle["session"]["context"]) == ("Morning walk", "On foot")
        shown = {
            name: [item["key"] for item in bundle[name]]
            for name in ("open_questions", "action_items", "decisions", "other_memories")
        }
        assert shown == {
            "open_questions": ["q"],
            "action_items": ["todo"],
            "decisions": ["decided", "old"],
            "other_memories": ["likes"],
        }
        assert [chunk["content"] for chunk in bundle["conversation"]] == ["first", "second"]
        assert [task["task_id"] for task in bundle["tasks"]] == ["t1"]
        assert bundle["artifacts"][0]["next_offset"] == 500
    small = send(walk, "resume_bundle", max_characters=200)
    assert small["truncated"] is True
    assert small["left_out"]
    for session_id in (SESSION, "evening"):
        send(walk, "complete_session", session_id, open_tasks="cancel")
    assert refusal(walk, "resume_bundle", None).message == "No session is active."


def test_a_missing_record_gets_the_nearest_as_suggestion(walk: Backend) -> None:
    send(walk, "store_memory", key="solar roof", content=1)
    send(walk, "delegate_task", task_id="task-research", description="x")
    send(walk, "add_artifact", artifact_id="report-2026", name="x", content=1)
    for command, data, name in (
        ("retrieve_memory", {"key": "solar rof"}, "solar roof"),
        ("get_task", {"task_id": "task-reserch"}, "task-research"),
        ("get_artifact", {"artifact_id": "report-2025"}, "report-2026"),
    ):
        error = refusal(walk, command, **data)
        assert isinstance(error, NotFound)
        assert f"'{name}'" in (error.hint or "")
    assert "'evening'" in (refusal(walk, "get_session_summary", "evenin").hint or "")
    assert "'evening'" in (refusal(walk, "store_memory", "evenin", content=1).hint or "")
    for command in ("list_sessions", "query_memories", "list_tasks", "list_artifacts", "search"):
        data = {"q": "x"} if command == "search" else {}
        assert refusal(walk, command, None, cursor="####", **data).field == "cursor"


def test_markdown_is_a_readable_document(walk: Backend) -> None:
    send(walk, "store_memory", key="plan", type="decision", content={"what": "Solar", "why": "sun"}, tags=["roof"])
    send(walk, "store_memory", key="todo", type="action_item", content="Call", status="done")
    send(walk, "delegate_task", description="Compare prices", agent_name="codex")
    send(walk, "add_artifact", name="main.py", type="code", format="python", content="print(1)")
    send(walk, "conversation_chunk", content="Ada: hello", participants=["Ada"], start_time="2026-01-01")
    document = b"".join(walk.export(SESSION, format="markdown")).decode()
    assert document.startswith("# Morning walk\n\nActive. Started ")
    for part in (
        "With Ada.\n\nOn foot\n",
        "## Decisions\n\n- Solar — sun (#roof)\n",
        "## Action items\n\n- [x] Call\n",
        "## Tasks\n\n- [ ] Compare prices (pending, codex)\n",
        "### main.py\n\n```python\nprint(1)\n```\n",
        "## Conversation\n\n### 2026-01-01T00:00:00Z, Ada\n\nAda: hello\n",
    ):
        assert part in document
