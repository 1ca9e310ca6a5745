"""Dead letters over HTTP: an operator lists, reads, replays and discards them."""

from __future__ import annotations

from sqlalchemy import Engine, text

from api.operations.dead_letters import STEP
from models.queue.inbox import shard_of
from sessions.postgres.commands.locks import SHARD_LOCK
from tests.support.clients.dead_letters import dead_letters_in, remove_cause, send_poison, status_of
from tests.support.processes.stack import Payload, Stack, new_id, wait_for


def test_a_dead_letter_is_shown_with_its_reason_and_its_payload(stack: Stack, poisoned: str) -> None:
    [delivery_id] = send_poison(stack, poisoned, 1)
    [listed] = dead_letters_in(stack, poisoned, command="store_memory")
    assert (listed["delivery_id"], listed["source"], listed["command"]) == (delivery_id, "default", "store_memory")
    assert listed["reason"].endswith("RaiseException P0001")
    assert "payload" not in listed
    shown = stack.client.get(f"/v1/dead-letters/{delivery_id}").json()
    assert shown["payload"] == {"key": "poison-0", "content": {"secret": 0}}
    assert shown["traceback"].startswith("Traceback")
    assert dead_letters_in(stack, poisoned, command="delete_memory") == []


def story(stack: Stack, session_id: str, delivery_id: str) -> list[tuple[str, Payload]]:
    """Return the status and data of each journal event of a delivery."""
    events = [event for event in stack.journal(session_id) if event["delivery_id"] == delivery_id]
    return [(event["status"], event["data"]) for event in events]


def test_a_replayed_dead_letter_takes_effect_once_when_its_cause_is_fixed(
    stack: Stack, poisoned: str, engine: Engine
) -> None:
    delivery_ids = send_poison(stack, poisoned, 3)
    one = f"/v1/dead-letters/{delivery_ids[0]}/replay"
    assert stack.client.post(one).json() == {"replayed": 1}
    wait_for(lambda: len(story(stack, poisoned, delivery_ids[0])) == 2, what="retried")
    assert status_of(stack, delivery_ids[0]) == "failed"
    remove_cause(engine)
    assert stack.client.post(one).json() == {"replayed": 1}
    again = stack.client.post(one).json()
    assert again == {"replayed": 1} or again["error"]["code"] == "dead_letter_not_found", "It may be applied by now."
    wait_for(lambda: status_of(stack, delivery_ids[0]) == "applied", what="applied")
    stack.wait_until_drained()
    replayed = stack.client.post("/v1/dead-letters/replay", params={"session_id": poisoned})
    assert (replayed.status_code, replayed.json()) == (202, {"replayed": 2, "next_cursor": None})
    wait_for(lambda: not dead_letters_in(stack, poisoned), what="no dead letters left")
    memories = stack.send("list_memories", poisoned)["data"]["memories"]
    assert sorted((memory["key"], memory["revision"]) for memory in memories) == [(f"poison-{n}", 1) for n in range(3)]
    applied = [event["delivery_id"] for event in stack.journal(poisoned) if event["status"] == "applied"]
    assert sorted(applied[1:]) == sorted(delivery_ids)
    gone = stack.client.post(one)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "dead_letter_not_found")


def test_the_journal_records_the_replay_of_a_dead_letter_and_its_outcome(
    stack: Stack, poisoned: str, engine: Engine
) -> None:
    [delivery_id] = send_poison(stack, poisoned, 1)
    replay = f"/v1/dead-letters/{delivery_id}/replay"
    stack.client.post(replay)
    wait_for(lambda: len(story(stack, poisoned, delivery_id)) == 2, what="retried")
    remove_cause(engine)
    stack.client.post(replay)
    wait_for(lambda: len(story(stack, poisoned, delivery_id)) == 3, what="applied")
    first, second, third = story(stack, poisoned, delivery_id)
    assert first == ("failed", {"code": "dead_letter"})
    assert (second[0], second[1]["code"], second[1]["replayed_by"]) == ("failed", "dead_letter", "default")
    assert (third[0], third[1]["key"], third[1]["replayed_by"]) == ("applied", "poison-0", "default")
    assert second[1]["replayed_at"] < third[1]["replayed_at"]


def test_many_dead_letters_are_replayed_page_by_page(stack: Stack, poisoned: str, engine: Engine) -> None:
    delivery_ids = send_poison(stack, poisoned, STEP + 4)
    remove_cause(engine)
    query = {"session_id": poisoned, "limit": str(STEP + 2)}
    first = stack.client.post("/v1/dead-letters/replay", params=query).json()
    assert first["replayed"] == STEP + 2
    rest = stack.client.post("/v1/dead-letters/replay", params=query | {"cursor": first["next_cursor"]}).json()
    assert rest == {"replayed": 2, "next_cursor": None}
    wait_for(lambda: not dead_letters_in(stack, poisoned), what="no dead letters left")
    replayed = [event["delivery_id"] for event in stack.journal(poisoned) if "replayed_by" in event["data"]]
    assert replayed == delivery_ids
    nonsense = stack.client.post("/v1/dead-letters/replay", params={"cursor": "nonsense"})
    assert (nonsense.status_code, nonsense.json()["error"]["field"]) == (422, "cursor")


def test_a_discarded_dead_letter_stays_known_and_has_no_effect(stack: Stack, poisoned: str, engine: Engine) -> None:
    [delivery_id] = send_poison(stack, poisoned, 1)
    remove_cause(engine)
    # The first resolution counts; later ones change nothing.
    assert stack.client.delete(f"/v1/dead-letters/{delivery_id}").json() == {"discarded": 1}
    stack.client.post(f"/v1/dead-letters/{delivery_id}/replay")
    wait_for(lambda: status_of(stack, delivery_id) == "rejected", what="discarded")
    stack.wait_until_drained()
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
    failed, discarded = story(stack, poisoned, delivery_id)
    assert failed == ("failed", {"code": "dead_letter"})
    assert (discarded[0], discarded[1]["code"], discarded[1]["discarded_by"]) == ("rejected", "discarded", "default")


def test_a_dead_letter_is_deleted_with_its_session_and_not_replayed_into_a_new_one(
    stack: Stack, poisoned: str, engine: Engine
) -> None:
    [delivery_id] = send_poison(stack, poisoned, 1)
    remove_cause(engine)
    # All entries are in the inbox before any is applied.
    with engine.begin() as connection:
        lock = {"class": SHARD_LOCK, "shard": shard_of(poisoned)}
        connection.execute(text("SELECT pg_advisory_xact_lock(:class, :shard)"), lock)
        stack.post("delete_session", poisoned, confirm=poisoned)
        stack.post("create_session", poisoned, title="Anew")
        assert stack.client.post(f"/v1/dead-letters/{delivery_id}/replay").json() == {"replayed": 1}
    stack.wait_until_drained()
    assert [event["event"] for event in stack.journal(poisoned)] == ["create_session"]
    assert stack.send("list_memories", poisoned)["data"]["memories"] == []
    assert dead_letters_in(stack, poisoned) == []


def test_a_key_for_some_sessions_manages_only_their_dead_letters(stack: Stack, poisoned: str) -> None:
    [delivery_id] = send_poison(stack, poisoned, 1)
    keys = {
        pattern: stack.client.post(
            "/v1/keys", json={"name": new_id("key"), "scopes": ["admin"], "sessions": pattern}
        ).json()["key"]
        for pattern in (poisoned[:-1] + "?", "chat-*")
    }
    ours, others = ({"X-API-Key": key} for key in keys.values())
    one = f"/v1/dead-letters/{delivery_id}?source=default"
    wait_for(lambda: stack.client.get("/v1/dead-letters", headers=others).status_code == 200, what="key accepted")
    assert stack.client.get("/v1/dead-letters", headers=others).json()["items"] == []
    for method, path in (("GET", one), ("DELETE", one), ("POST", one.replace("?", "/replay?"))):
        refused = stack.client.request(method, path, headers=others)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "dead_letter_not_found")
    assert stack.client.post("/v1/dead-letters/replay", headers=others).json()["replayed"] == 0
    named = stack.client.get("/v1/dead-letters", params={"session_id": poisoned}, headers=others)
    assert named.status_code == 403
    listed = stack.client.get("/v1/dead-letters", headers=ours).json()["items"]
    assert [item["delivery_id"] for item in listed] == [delivery_id]
    assert stack.client.get(one, headers=ours).json()["payload"]["key"] == "poison-0"
