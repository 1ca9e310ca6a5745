"""Commands rejected for the state of their session: they are evaluated again when sent again. Events whose senders
cannot correct them are parked until they are replayed, discarded, or too old."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import Engine, text

from models.access.scopes import ALL_SCOPES
from models.field_types import Scope
from models.queue.inbox import DeadLetterResolution, Entry, decode_outcome, dedup_key, inbox_key, outcome_key, shard_of
from sessions.commands import parked_events
from sessions.commands.manager import SessionManager
from sessions.postgres.commands.store import PostgresStore
from sessions.postgres.operations.dead_letters import (
    DeadLetterFilter,
    entries_to_rule,
    failed_deliveries,
    find_dead_letter,
    list_dead_letters,
)
from tests.support.stores.effects import memories, status_of
from tests.support.stores.inbox import drain, entry, push
from worker.drain import Drain
from worker.inbox import read_entries
from worker.retention import prune_deliveries

STATES = {"paused": "pause_session", "completed": "complete_session"}
RULING = DeadLetterResolution(by="ops", at=datetime(2026, 11, 26, 12, 0, tzinfo=UTC))


def event(session_id: str, *, scope: Scope = "hook", source: str = "", **data: Any) -> Entry:
    """Return an entry of a sender that cannot correct it."""
    item = entry(
        "store_memory", session_id, source=source or f"deploys-{session_id}", **{"key": "k", "content": 1} | data
    )
    return msgspec.structs.replace(item, scopes=[scope])


def again(item: Entry) -> Entry:
    """Return the same delivery as the relay accepts it when it is sent again."""
    return msgspec.structs.replace(item, accepted_at=datetime.now(UTC))


def parked(engine: Engine, session_id: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return list_dead_letters(
            connection, DeadLetterFilter(status="parked", session_id=session_id), limit=500, cursor=None
        ).items


def replay(redis: Redis, engine: Engine, item: Entry, resolution: DeadLetterResolution = RULING) -> list[str]:
    with engine.connect() as connection:
        found, _ = entries_to_rule(
            connection, DeadLetterFilter(source=item.source, delivery_id=item.delivery_id), resolution
        )
    return drain(redis, engine, *found)


def commit_without_acknowledging(redis: Redis, engine: Engine, session_id: str) -> None:
    """Drain like a worker that is killed between its commit and its acknowledgement to Redis."""
    with engine.begin() as connection:
        waiting = read_entries(redis, [shard_of(session_id)]).entries
        SessionManager(PostgresStore(connection)).apply([item.entry for item in waiting])


@pytest.mark.parametrize("state", STATES)
def test_a_command_rejected_by_an_inactive_session_can_be_sent_again(
    redis: Redis, engine: Engine, walk: str, state: str
) -> None:
    item = entry("store_memory", walk, key="k", content=1)
    drain(redis, engine, entry(STATES[state], walk), item)
    assert status_of(engine, item) == "rejected"
    assert not redis.exists(dedup_key("tests", item.delivery_id))
    drain(redis, engine, entry("resume_session", walk))
    assert push(redis, again(item)) == ["accepted"]
    assert drain(redis, engine)[shard_of(walk)].endswith(": 1 applied")
    assert (status_of(engine, item), memories(engine, walk)) == ("applied", {"k": 1})
    assert drain(redis, engine, again(item))[0].endswith(": 0 applied")
    redis.delete(dedup_key("tests", item.delivery_id))
    assert drain(redis, engine, again(item))[0].endswith(": 1 duplicate")


def test_the_journal_records_each_rejection_and_one_effect(redis: Redis, engine: Engine, walk: str) -> None:
    item = entry("store_memory", walk, key="k", content=1)
    drain(redis, engine, entry("pause_session", walk), item)
    drain(redis, engine, again(item))
    drain(redis, engine, entry("resume_session", walk), again(item))
    redis.delete(dedup_key("tests", item.delivery_id))
    drain(redis, engine, again(item))
    with engine.connect() as connection:
        statement = text("SELECT status FROM events WHERE delivery_id = :id ORDER BY event_id")
        told = connection.scalars(statement, {"id": item.delivery_id}).all()
    assert told == ["rejected", "rejected", "applied"]


def test_a_command_for_a_missing_session_can_be_sent_again_once_it_exists(redis: Redis, engine: Engine) -> None:
    session_id = f"late-{secrets.token_hex(6)}"
    item = entry("store_memory", session_id, key="k", content=1)
    drain(redis, engine, item)
    assert status_of(engine, item) == "rejected"
    drain(redis, engine, entry("create_session", session_id, title="Late"), again(item))
    assert (status_of(engine, item), memories(engine, session_id)) == ("applied", {"k": 1})


def test_a_rejection_for_another_reason_is_final(redis: Redis, engine: Engine, walk: str) -> None:
    item = entry("delete_memory", walk, key="k")
    drain(redis, engine, item, entry("store_memory", walk, key="k", content=1))
    redis.delete(dedup_key("tests", item.delivery_id))
    assert drain(redis, engine, again(item))[0].endswith(": 1 duplicate")
    assert memories(engine, walk) == {"k": 1}


def test_a_redelivery_in_the_same_batch_is_evaluated_in_its_own_place(redis: Redis, engine: Engine, walk: str) -> None:
    item = entry("store_memory", walk, key="k", content=1, waits=True)
    resume = entry("resume_session", walk)
    drained = drain(redis, engine, entry("pause_session", walk), item, again(item), resume, again(item), again(item))
    assert drained[0].endswith(": 3 applied, 2 rejected, 1 duplicate")
    assert (status_of(engine, item), memories(engine, walk)) == ("applied", {"k": 1})


def test_entries_evaluated_before_a_worker_died_are_not_evaluated_again(
    redis: Redis, engine: Engine, walk: str
) -> None:
    item = entry("store_memory", walk, key="k", content=1, waits=True)
    push(redis, entry("pause_session", walk), item, again(item), entry("resume_session", walk))
    commit_without_acknowledging(redis, engine, walk)
    assert drain(redis, engine)[shard_of(walk)].endswith(": 4 duplicate")
    assert (status_of(engine, item), memories(engine, walk)) == ("rejected", {})
    drain(redis, engine, again(item))
    assert memories(engine, walk) == {"k": 1}


def test_a_redelivery_applied_before_a_worker_died_is_not_applied_again(
    redis: Redis, engine: Engine, walk: str
) -> None:
    item = entry("delegate_task", walk, description="x", allow_duplicate=True, waits=True)
    push(redis, entry("pause_session", walk), item, entry("resume_session", walk), again(item))
    commit_without_acknowledging(redis, engine, walk)
    assert drain(redis, engine)[shard_of(walk)].endswith(": 4 duplicate")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tasks WHERE session_id = :id"), {"id": walk}) == 1


@pytest.mark.parametrize("scope", ["hook", "send"])
def test_an_event_whose_sender_cannot_correct_it_is_parked_and_replayed_once(
    redis: Redis, engine: Engine, walk: str, scope: Scope
) -> None:
    item = event(walk, scope=scope)
    assert drain(redis, engine, entry("pause_session", walk), item)[0].endswith(": 1 applied, 1 parked")
    [listed] = parked(engine, walk)
    assert (listed["delivery_id"], listed["status"]) == (item.delivery_id, "parked")
    assert listed["reason"] == '"Walk" is paused and accepts no changes.'
    with engine.connect() as connection:
        found = find_dead_letter(connection, DeadLetterFilter(source=item.source, delivery_id=item.delivery_id))
        assert found is not None
        assert bytes(found["payload"]) == bytes(item.data)
        assert (item.source, item.delivery_id) not in failed_deliveries(connection, limit=1_000)
    assert replay(redis, engine, item)[0].endswith(": 1 parked")
    drain(redis, engine, entry("resume_session", walk))
    assert replay(redis, engine, item)[0].endswith(": 1 applied")
    assert (status_of(engine, item), memories(engine, walk), parked(engine, walk)) == ("applied", {"k": 1}, [])
    assert drain(redis, engine, msgspec.structs.replace(again(item), resolution=RULING))[0].endswith(": 1 duplicate")


def test_a_parked_event_that_is_sent_again_takes_effect_once_and_is_unparked(
    redis: Redis, engine: Engine, walk: str
) -> None:
    item = event(walk)
    drain(redis, engine, entry("pause_session", walk), item, entry("resume_session", walk))
    with engine.connect() as connection:
        ruled, _ = entries_to_rule(
            connection, DeadLetterFilter(source=item.source, delivery_id=item.delivery_id), RULING
        )
    assert drain(redis, engine, again(item), *ruled)[0].endswith(": 1 applied, 1 duplicate")
    assert (memories(engine, walk), parked(engine, walk)) == ({"k": 1}, [])


def test_a_replay_after_a_redelivery_and_a_resumption_is_evaluated_in_its_own_place(
    redis: Redis, engine: Engine, walk: str
) -> None:
    item = event(walk)
    drain(redis, engine, entry("pause_session", walk), item)
    with engine.connect() as connection:
        ruled, _ = entries_to_rule(
            connection, DeadLetterFilter(source=item.source, delivery_id=item.delivery_id), RULING
        )
    assert drain(redis, engine, again(item), entry("resume_session", walk), *ruled)[0].endswith(": 2 applied, 1 parked")
    assert (memories(engine, walk), parked(engine, walk)) == ({"k": 1}, [])


def test_a_replayed_dead_letter_that_its_session_rejects_is_parked(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_events, "MAX_EVENTS", 0)  # The dead letter exists already, so it needs no more room.
    item = entry("store_memory", walk, key="k", content=1)
    drain(redis, engine, msgspec.structs.replace(item, command="store_dream"), entry("pause_session", walk))
    drain(redis, engine, msgspec.structs.replace(item, resolution=RULING))
    assert status_of(engine, item) == "parked"
    drain(redis, engine, entry("resume_session", walk))
    assert replay(redis, engine, item)[0].endswith(": 1 applied")
    assert memories(engine, walk) == {"k": 1}


def test_a_parked_event_is_not_replaced_by_other_content_under_its_id(redis: Redis, engine: Engine, walk: str) -> None:
    item = event(walk)
    other = msgspec.structs.replace(event(walk, content=2), delivery_id=item.delivery_id)
    drained = drain(redis, engine, entry("pause_session", walk), item)
    drained = drain(redis, engine, other)
    assert drained[0].endswith(": 1 conflict")
    drain(redis, engine, entry("resume_session", walk))
    assert replay(redis, engine, item)[0].endswith(": 1 applied")


def test_a_parked_event_can_be_discarded(redis: Redis, engine: Engine, walk: str) -> None:
    item = event(walk)
    drain(redis, engine, entry("pause_session", walk), item, entry("resume_session", walk))
    replay(redis, engine, item, msgspec.structs.replace(RULING, discards=True))
    redis.delete(dedup_key(item.source, item.delivery_id))
    assert drain(redis, engine, again(item))[0].endswith(": 1 duplicate")
    assert (status_of(engine, item), memories(engine, walk)) == ("rejected", {})


def answer_of(redis: Redis, item: Entry) -> dict[str, Any]:
    """Return the response that is kept for a waiting sender."""
    value = cast(bytes, redis.get(outcome_key("tests", item.delivery_id, item.hash)))
    answer: dict[str, Any] = msgspec.json.decode(decode_outcome(value).body)
    return answer


def test_resuming_a_session_returns_the_number_of_parked_events(redis: Redis, engine: Engine, walk: str) -> None:
    items = [event(walk, key=f"k{n}") for n in range(3)]
    resume = entry("resume_session", walk, waits=True)
    drain(redis, engine, entry("pause_session", walk), *items, resume)
    body = answer_of(redis, resume)
    assert body["data"]["waiting_events"] == 3
    assert body["message"] == 'Resumed "Walk". 3 events that arrived meanwhile are waiting to be replayed.'
    batch = entry("batch", walk, waits=True, commands=[{"command": "resume_session"}])
    drain(redis, engine, batch)
    assert answer_of(redis, batch)["data"]["results"][0]["data"]["waiting_events"] == 3


def test_deleting_a_session_deletes_its_parked_events(redis: Redis, engine: Engine, walk: str) -> None:
    item = event(walk, content="the-payload")
    drain(redis, engine, entry("pause_session", walk), item)
    with engine.connect() as connection:
        ruled, _ = entries_to_rule(
            connection, DeadLetterFilter(source=item.source, delivery_id=item.delivery_id), RULING
        )
    drain(redis, engine, entry("delete_session", walk, confirm=walk))
    drain(redis, engine, entry("create_session", walk, title="Anew"), *ruled)
    assert (status_of(engine, item), memories(engine, walk)) == (None, {})
    with engine.connect() as connection:
        left = connection.scalar(text("SELECT count(*) FROM deliveries WHERE entry::text LIKE '%the-payload%'"))
    assert left == 0


def test_the_parked_events_of_one_sender_are_bounded(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_events, "MAX_EVENTS", 3)
    drain(redis, engine, entry("pause_session", walk))
    first = [event(walk, source=f"many-{walk}", key=f"k{n}") for n in range(2)]
    assert drain(redis, engine, *first)[0].endswith(": 2 parked")
    more = [event(walk, source=f"many-{walk}", key=f"m{n}") for n in range(3)]
    assert drain(redis, engine, *more)[0].endswith(": 2 rejected, 1 parked")
    assert len(parked(engine, walk)) == 3
    assert drain(redis, engine, again(first[0]))[0].endswith(": 1 parked")
    monkeypatch.setattr(parked_events, "MAX_BYTES", 100)
    assert drain(redis, engine, event(walk, content="x" * 200))[0].endswith(": 1 rejected")
    drain(redis, engine, entry("resume_session", walk), again(more[2]))
    assert memories(engine, walk) == {"m2": 1}


def test_old_parked_events_are_deleted_with_other_deliveries(redis: Redis, engine: Engine, walk: str) -> None:
    item = event(walk)
    drain(redis, engine, entry("pause_session", walk), item)
    with engine.begin() as connection:
        old = text("UPDATE deliveries SET decided_at = '2020-01-01' WHERE delivery_id = :id")
        connection.execute(old, {"id": item.delivery_id})
    prune_deliveries(engine, datetime(2020, 2, 1, tzinfo=UTC))
    assert status_of(engine, item) is None


def test_commands_of_keys_that_can_correct_them_are_not_parked(redis: Redis, engine: Engine, walk: str) -> None:
    item = msgspec.structs.replace(event(walk), scopes=list(ALL_SCOPES))
    drain(redis, engine, entry("pause_session", walk), item)
    assert status_of(engine, item) == "rejected"
    assert redis.xlen(inbox_key(shard_of(walk))) == 0


STEPS = ("pause", "resume", "send", "send and wait", "forget", "drain", "die after the commit", "replay")


@pytest.mark.parametrize("scope", ["admin", "send"])
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.sampled_from(STEPS), min_size=6, max_size=14))
def test_any_sequence_of_steps_applies_it_once(redis: Redis, engine: Engine, scope: Scope, steps: list[str]) -> None:
    session_id = f"walk-{secrets.token_hex(6)}"
    shard = shard_of(session_id)
    drain(redis, engine, entry("create_session", session_id, title="Walk"))
    item = entry("delegate_task", session_id, description="x", allow_duplicate=True)
    item = msgspec.structs.replace(item, scopes=[scope])
    for step in steps:
        match step:
            case "pause" | "resume":
                push(redis, entry(f"{step}_session", session_id))
            case "send" | "send and wait":
                push(redis, msgspec.structs.replace(again(item), waits=step != "send"))
            case "forget":
                redis.delete(dedup_key(item.source, item.delivery_id))
            case "drain":
                Drain(redis, engine).run([shard])
            case "die after the commit":
                commit_without_acknowledging(redis, engine, session_id)
            case "replay":
                with engine.connect() as connection:
                    wanted = DeadLetterFilter(source=item.source, delivery_id=item.delivery_id)
                    push(redis, *entries_to_rule(connection, wanted, RULING)[0])
    drain(redis, engine, entry("resume_session", session_id))
    drain(redis, engine, again(item))
    with engine.connect() as connection:
        count = connection.scalar(text("SELECT count(*) FROM tasks WHERE session_id = :id"), {"id": session_id})
    assert (count, status_of(engine, item)) == (1, "applied")
    assert redis.xlen(inbox_key(shard)) == 0
