"""Dead letters over HTTP: an operator lists, reads, replays and discards them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from tests.acceptance.stack import Payload, Stack, new_id, wait_for

FUNCTION = "refuse_poison"


@pytest.fixture
def poisoned(stack: Stack, engine: Engine) -> Iterator[str]:
    """A session in which memories called `poison-…` cannot be stored."""
    session_id = new_id("poisoned")
    stack.send("create_session", session_id, title="Poisoned")
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            CREATE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF new.session_id = '{session_id}' AND new.key LIKE 'poison-%' THEN RAISE EXCEPTION 'not yet'; END IF;
                RETURN new;
            END $$;
            CREATE TRIGGER {FUNCTION} BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION {FUNCTION}()
            """)
        )
    yield session_id
    mend(engine)


def mend(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"DROP FUNCTION IF EXISTS {FUNCTION} CASCADE"))


def dead(stack: Stack, session_id: str, **query: str) -> list[Payload]:
    answer = stack.client.get("/v1/dead-letters", params={"session_id": session_id, **query})
    items: list[Payload] = answer.json()["items"]
    return items


def status_of(stack: Stack, delivery_id: str) -> str:
    return str(stack.client.get(f"/v1/deliveries/{delivery_id}").json()["status"])


def send_poison(stack: Stack, session_id: str, count: int) -> list[str]:
    ids = [
        stack.post("store_memory", session_id, key=f"poison-{n}", content={"secret": n})["delivery_id"]
        for n in range(count)
    ]
    wait_for(lambda: len(dead(stack, session_id)) == count, what="dead")
    return ids


def test_a_dead_letter_is_shown_with_its_reason_and_its_payload(stack: Stack, poisoned: str) -> None:
    [delivery_id] = send_poison(stack, poisoned, 1)
    [listed] = dead(stack, poisoned, command="store_memory")
    assert (listed["delivery_id"], listed["source"], listed["command"]) == (delivery_id, "default", "store_memory")
    assert listed["reason"].endswith("RaiseException P0001, not yet")
    assert "payload" not in listed
    shown = stack.client.get(f"/v1/dead-letters/{delivery_id}").json()
    assert shown["payload"] == {"key": "poison-0", "content": {"secret": 0}}
    assert shown["traceback"].startswith("Traceback")
    assert dead(stack, poisoned, command="delete_memory") == []


def test_a_replayed_dead_letter_takes_effect_once_when_the_cause_is_mended(
    stack: Stack, poisoned: str, engine: Engine
) -> None:
    delivery_ids = send_poison(stack, poisoned, 3)
    one = f"/v1/dead-letters/{delivery_ids[0]}/replay"
    assert stack.client.post(one).json() == {"replayed": 1}
    stack.wait_until_drained()
    assert status_of(stack, delivery_ids[0]) == "failed"
    mend(engine)
    assert [stack.client.post(one).json() for _ in range(2)] == [{"replayed": 1}] * 2
    wait_for(lambda: status_of(stack, delivery_ids[0]) == "applied", what="applied")
    stack.wait_until_drained()
    replayed = stack.client.post("/v1/dead-letters/replay", params={"session_id": poisoned})
    assert (replayed.status_code, replayed.json()) == (202, {"replayed": 2})
    wait_for(lambda: not dead(stack, poisoned), what="empty")
    memories = stack.send("list_memories", poisoned)["data"]["memories"]
    assert sorted((memory["key"], memory["revision"]) for memory in memories) == [(f"poison-{n}", 1) for n in range(3)]
    applied = [event["delivery_id"] for event in stack.journal(poisoned) if event["status"] == "applied"]
    assert sorted(applied[1:]) == sorted(delivery_ids)
    gone = stack.client.post(one)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "dead_letter_not_found")


def test_a_discarded_dead_letter_stays_known_and_takes_no_effect(stack: Stack, poisoned: str, engine: Engine) -> None:
    [delivery_id] = send_poison(stack, poisoned, 1)
    assert stack.client.delete(f"/v1/dead-letters/{delivery_id}").json() == {"discarded": 1}
    mend(engine)
    found = stack.client.get(f"/v1/deliveries/{delivery_id}").json()
    assert (found["status"], found["error"]["error"]["code"]) == ("rejected", "discarded")
    again = stack.client.post(
        "/v1/webhook?wait=30",
        json={
            "command": "store_memory",
            "session_id": poisoned,
            "id": delivery_id,
            "data": {"key": "poison-0", "content": {"secret": 0}},
        },
    )
    assert (again.status_code, again.json()["error"]["code"]) == (422, "discarded")
    assert stack.send("list_memories", poisoned)["data"]["memories"] == []
    assert stack.client.delete(f"/v1/dead-letters/{delivery_id}").status_code == 404
