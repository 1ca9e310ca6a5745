"""The ids of a journal, which serve as cursors: they increase, and reveal nothing about other sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from sessions.postgres.reads.events import read_events
from tests.support.processes.stack import new_id
from tests.support.stores.inbox import drain, entry


@pytest.fixture
def journals(redis: Redis, engine: Engine) -> Iterator[tuple[str, str]]:
    """Two sessions, which are deleted after the test."""
    sessions = new_id("journal"), new_id("journal")
    for session_id in sessions:
        drain(redis, engine, entry("create_session", session_id, title="Journal"))
    yield sessions
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM sessions WHERE session_id = ANY (:ids)"), {"ids": list(sessions)})


def cursors(engine: Engine, session_id: str, after: str | None = None) -> list[int]:
    with engine.connect() as connection:
        page = read_events(connection, session_id=session_id, after=after, limit=500, max_characters=90_000)
    return [int(item["cursor"]) for item in page.items]


def microseconds() -> int:
    return time.time_ns() // 1_000


def test_ids_are_times_and_reveal_nothing_about_other_sessions(
    redis: Redis, engine: Engine, journals: tuple[str, str]
) -> None:
    ours, theirs = journals
    drawn = text("SELECT last_value FROM events_event_id_seq")
    with engine.connect() as connection:
        before = connection.scalar(drawn)
    began = microseconds()
    drain(redis, engine, *(entry("store_memory", theirs, key=f"k{n}", content=n) for n in range(200)))
    drain(redis, engine, *(entry("store_memory", ours, key=f"k{n}", content=n) for n in range(5)))
    last = cursors(engine, ours)[-5:]
    assert began < last[0] <= microseconds()
    assert [after - before for before, after in pairwise(last)] == [1] * 4
    assert cursors(engine, theirs) == sorted(set(cursors(engine, theirs)))
    with engine.connect() as connection:
        assert connection.scalar(drawn) == before


def test_ids_increase_even_when_the_clock_was_set_back(redis: Redis, engine: Engine, journals: tuple[str, str]) -> None:
    ours, _ = journals
    ahead = microseconds() + 3_600_000_000
    with engine.begin() as connection:
        moved = text("UPDATE events SET event_id = :ahead WHERE session_id = :id")
        connection.execute(moved, {"ahead": ahead, "id": ours})
    drain(redis, engine, *(entry("store_memory", ours, key=f"k{n}", content=n) for n in range(3)))
    assert cursors(engine, ours) == [ahead, ahead + 1, ahead + 2, ahead + 3]


def test_old_cursors_stay_valid_even_in_a_recreated_session(
    redis: Redis, engine: Engine, journals: tuple[str, str]
) -> None:
    ours, _ = journals
    with engine.begin() as connection:
        connection.execute(text("UPDATE events SET event_id = 17 WHERE session_id = :id"), {"id": ours})
    drain(redis, engine, entry("store_memory", ours, key="k", content=1))
    [later] = cursors(engine, ours, after="17")
    drain(redis, engine, entry("delete_session", ours, confirm=ours), entry("create_session", ours, title="Anew"))
    assert len(cursors(engine, ours, after=str(later))) == 1
