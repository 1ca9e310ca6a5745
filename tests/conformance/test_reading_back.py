"""Reading back what was stored: conversations word for word, recent activity, and sessions by name and time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.errors import NotFound
from sessions.backend import Backend
from tests.support.stores.sending import SESSION, items, refusal, send

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
