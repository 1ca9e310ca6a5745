"""Reading back what was stored: conversations word for word, recent activity, and sessions by name and time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.errors import NotFound
from sessions.backend import Backend
from tests.support.stores.sending import SESSION, items, pages, refusal, send

LONG = "".join(f"Sentence {number} of the story, 数 and ü. " for number in range(8_000))
NEEDLE = "Sentence 4321 of the story"


@pytest.fixture
def walk(backend: Backend) -> Backend:
    """A store with a conversation of three chunks, the second of some 300,000 characters."""
    send(backend, "create_session", title="Morning walk")
    send(backend, "conversation_chunk", chunk_id="before", content="Ada: before", participants=["Ada"])
    send(
        backend,
        "conversation_chunk",
        chunk_id="story",
        content=LONG,
        format="transcript",
        participants=["Ada", "Jörg"],
        start_time="2026-03-05T10:00:00Z",
    )
    send(backend, "conversation_chunk", chunk_id="after", content="Ada: after", start_time="2026-03-05T11:00:00Z")
    return backend


def test_the_middle_of_a_long_chunk_can_be_read_and_followed(walk: Backend) -> None:
    at = LONG.index(NEEDLE)
    data = send(walk, "read_conversation", chunk_id="story", offset=at - 100, max_characters=1_000)
    assert len(msgspec.json.encode(data).decode()) <= 1_200
    [piece] = data["chunks"]
    assert piece["content"][100:].startswith(NEEDLE)
    assert LONG[at - 100 :].startswith(piece["content"])
    assert piece["total_characters"] == len(LONG)
    assert (piece["offset"], piece["next_offset"]) == (at - 100, at - 100 + len(piece["content"]))
    assert (piece["said_at"], piece["participants"]) == ("2026-03-05T10:00:00Z", ["Ada", "Jörg"])
    for more in ({"chunk_id": "story", "offset": piece["next_offset"]}, {"cursor": data["next_cursor"]}):
        [following] = send(walk, "read_conversation", **more, max_characters=1_000)["chunks"]
        assert LONG[piece["next_offset"] :].startswith(following["content"])
        assert following["offset"] == piece["next_offset"]


def test_a_cursor_goes_on_even_if_the_first_arguments_are_repeated(walk: Backend) -> None:
    first = {"chunk_id": "story", "offset": 50, "max_characters": 1_000}
    page = send(walk, "read_conversation", **first)
    again = send(walk, "read_conversation", **first, cursor=page["next_cursor"])
    assert again["chunks"][0]["offset"] == page["chunks"][0]["next_offset"]


def test_a_conversation_is_read_from_a_chunk_into_the_next_ones(walk: Backend) -> None:
    [end, after, before] = send(walk, "read_conversation", chunk_id="story", offset=len(LONG) - 20)["chunks"]
    assert (end["content"], after["content"], before["content"]) == (LONG[-20:], "Ada: after", "Ada: before")
    [after, before] = send(walk, "read_conversation", chunk_id="after")["chunks"]
    assert (after["previous_chunk_id"], after["total_characters"]) == ("story", 10)
    assert "previous_chunk_id" not in before
    whole = items(walk, "read_conversation", SESSION, max_characters=90_000)
    assert "".join(piece["content"] for piece in whole) == LONG + "Ada: afterAda: before"
    assert len(send(walk, "read_conversation", chunk_id="after", limit=1)["chunks"]) == 1
    assert "previous_chunk_id" not in send(walk, "read_conversation", chunk_id="story")["chunks"][0]


def test_an_offset_beyond_the_end_says_how_long_the_chunk_is(walk: Backend) -> None:
    piece = send(walk, "read_conversation", chunk_id="after", offset=500, limit=1)["chunks"][0]
    assert (piece["content"], piece["total_characters"]) == ("", 10)
    assert "next_offset" not in piece


def test_an_unknown_chunk_gets_similar_ones_as_suggestions(walk: Backend) -> None:
    error = refusal(walk, "read_conversation", chunk_id="storry")
    assert isinstance(error, NotFound)
    assert (error.code, error.field) == ("chunk_not_found", "data.chunk_id")
    assert "'story'" in (error.hint or "")
    assert "without chunk_id" in (refusal(walk, "read_conversation", chunk_id="zzz").hint or "")


def test_an_empty_conversation_has_no_chunks(backend: Backend) -> None:
    send(backend, "create_session", title="Morning walk")
    data: dict[str, Any] = send(backend, "read_conversation")
    assert (data["chunks"], data["count"], data["next_cursor"]) == ([], 0, None)


WEEK = {"since": "2026-03-02", "until": "2026-03-08"}


@pytest.fixture
def busy(backend: Backend) -> Backend:
    """A store with two sessions in which something of each kind happened."""
    send(backend, "create_session", title="Kitchen", context="Rebuild it before May")
    send(backend, "create_session", "garden", title="Garden")
    send(backend, "conversation_chunk", chunk_id="c1", content="Ada: which\n oven? " * 50, participants=["Ada"])
    send(backend, "conversation_chunk", "garden", chunk_id="c2", content="Roses", start_time="2026-03-05T10:00:00Z")
    send(backend, "store_memory", key="oven", type="decision", content={"pick": "Gas", "why": ["quick", "cheap"]})
    send(backend, "delegate_task", task_id="t1", description="Compare  prices of ovens")
    send(backend, "cancel_task", task_id="t1", reason="Too dear")
    send(backend, "add_artifact", artifact_id="plan", name="Plan", content="# Plan\n\nFirst the floor")
    send(backend, "complete_session", "garden")
    return backend


def shown(activity: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    ids = ("chunk_id", "key", "task_id", "artifact_id", "session_id")
    return [(item["kind"], item["event"], next(item[name] for name in ids if name in item)) for item in activity]


def test_recent_activity_has_all_kinds_the_latest_first(busy: Backend) -> None:
    activity = items(busy, "recent_activity")
    assert shown(activity) == [
        ("session", "completed", "garden"),
        ("artifact", "created", "plan"),
        ("task", "changed", "t1"),
        ("memory", "created", "oven"),
        ("conversation", "said", "c1"),
        ("session", "created", "garden"),
        ("session", "created", SESSION),
        ("conversation", "said", "c2"),
    ]
    assert [item["session_title"] for item in activity][:2] == ["Garden", "Kitchen"]
    excerpts = [item.get("excerpt") for item in activity]
    assert excerpts[1:4] == ["# Plan First the floor", "Too dear", "pick: Gas; why: quick, cheap"]
    assert excerpts[6:] == ["Rebuild it before May", "Roses"]
    assert len(str(excerpts[4])) == 300
    assert str(excerpts[4]).startswith("Ada: which oven? Ada")
    assert (activity[2]["status"], activity[2]["title"]) == ("cancelled", "Compare prices of ovens")
    assert (activity[4]["participants"], activity[4]["total_characters"]) == (["Ada"], 900)
    assert activity[7]["at"] == "2026-03-05T10:00:00Z"
    for limit in (1, 3):
        assert items(busy, "recent_activity", limit=limit) == activity
    small = pages(busy, "recent_activity", max_characters=500)
    assert shown([item for page in small for item in page.items]) == shown(activity)
    assert all(len(msgspec.json.encode(page.items).decode()) <= 500 for page in small)
    own = [item for item in activity if item["session_id"] == "garden"]
    assert items(busy, "recent_activity", "garden", limit=2) == own
    assert send(busy, "recent_activity", "garden")["count"] == 3


def test_recent_activity_is_limited_to_a_period_by_the_time_of_saying(busy: Backend) -> None:
    assert shown(items(busy, "recent_activity", **WEEK)) == [("conversation", "said", "c2")]
    assert len(items(busy, "recent_activity", since="1h")) == 7
    assert items(busy, "recent_activity", since="2026-03-09", until="2026-03-10") == []
    assert refusal(busy, "recent_activity", None, since="last week").field == "data.since"
    assert refusal(busy, "recent_activity", None, cursor="####").field == "cursor"


def test_what_changed_after_a_period_is_listed_at_its_creation(backend: Backend) -> None:
    send(backend, "create_session", title="Kitchen")
    found = {"decisions": ["Gas"]}
    when = "2026-03-05T10:00:00Z"
    send(backend, "conversation_chunk", chunk_id="c", content="Gas", start_time=when, extracted_items=found)
    [memory] = items(backend, "query_memories", SESSION)
    send(backend, "store_memory", key=memory["key"], content="Gas", status="done")
    listed = items(backend, "recent_activity", SESSION, **WEEK)
    assert shown(listed) == [("memory", "created", memory["key"]), ("conversation", "said", "c")]
    assert (listed[0]["status"], listed[0]["at"]) == ("done", when)
    assert shown(items(backend, "recent_activity", SESSION, since="2026-03-01"))[0] == (
        "memory",
        "changed",
        memory["key"],
    )


def test_items_of_the_same_moment_are_listed_once_each(backend: Backend) -> None:
    commands: list[dict[str, Any]] = [
        {"command": "store_memory", "data": {"key": f"Ä {n}", "content": n}} for n in range(5)
    ]
    commands += [{"command": "delegate_task", "data": {"task_id": f"t{n}", "description": f"x{n}"}} for n in range(5)]
    send(backend, "create_session", title="Kitchen")
    send(backend, "batch", commands=commands)
    listed = shown(items(backend, "recent_activity", limit=3))
    assert len(listed) == len(set(listed)) == 11


def test_sessions_are_found_by_words_of_title_context_and_id(backend: Backend) -> None:
    for session_id, title, context in (
        ("kitchen-4f2a", "Küche renovieren", "The oven, the floor and the budget"),
        ("garten-2026", "Straßengarten", ""),
        ("odyssey", "Ὀδύσσεια ΟΔΟΣ", "Read it aloud"),
        ("story-9", "ÉTUDE № 9", "100% _wild_"),
    ):
        send(backend, "create_session", session_id, title=title, context=context)
    for q, found in (
        ("küche", "kitchen-4f2a"),
        ("KUCHE", "kitchen-4f2a"),
        ("kitchen", "kitchen-4f2a"),
        ("oven Küche", "kitchen-4f2a"),
        ("strassen", "garten-2026"),
        ("οδυσσεια οδος", "odyssey"),
        ("etude", "story-9"),
        ("%", "story-9"),
        ("_wild", "story-9"),
    ):
        assert [item["session_id"] for item in items(backend, "list_sessions", q=q)] == [found], q
    assert items(backend, "list_sessions", q="oven garden") == []
    assert len(items(backend, "list_sessions", q="  ", limit=3)) == 4
    assert len(items(backend, "list_sessions", q="e", limit=1)) == 4
    send(backend, "complete_session", "odyssey")
    assert items(backend, "list_sessions", q="odyssey", filter="active") == []


def test_sessions_are_limited_to_a_period_of_activity(walk: Backend) -> None:
    assert [item["session_id"] for item in items(walk, "list_sessions", since="1h")] == [SESSION]
    assert items(walk, "list_sessions", until="1h") == []
    assert items(walk, "list_sessions", since="2026-01-01", until="2026-01-31") == []


def test_a_wrong_session_id_gets_sessions_by_title_as_suggestions(backend: Backend) -> None:
    send(backend, "create_session", "s-4711", title="Kitchen renovation")
    send(backend, "create_session", "s-4712", title="Küchengarten")
    send(backend, "create_session", "evening", title="Evening walk")
    for wanted, found in (
        ("kitchen", "'s-4711' (\"Kitchen renovation\")"),
        ("kitchen-renovation-2026", "'s-4711'"),
        ("kichen", "'s-4711'"),
        ("kuchengarten", "'s-4712'"),
        ("evenin", "'evening' (\"Evening walk\")"),
    ):
        for command, data in (("get_session_summary", {}), ("store_memory", {"content": 1})):
            hint = refusal(backend, command, wanted, **data).hint or ""
            assert hint.startswith(f"Did you mean {found}"), (wanted, hint)
    assert "Did you mean" not in (refusal(backend, "get_session_summary", "totally-other").hint or "")
