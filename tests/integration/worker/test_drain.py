"""The drain: each entry is applied once, poison commands are isolated, and nothing is lost when Postgres is down."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer
from sqlalchemy import Engine, text

from models.queue.inbox import (
    BACKLOG_BYTES_KEY,
    BACKLOG_KEY,
    OutcomeMessage,
    dedup_key,
    drain_pending_key,
    inbox_key,
    shard_of,
)
from models.queue.job_queue import open_queue
from models.settings import Settings
from sessions.commands.manager import SessionManager
from sessions.commands.read_time_budget import AT_ONCE_SECONDS, ReadTimeBudget
from sessions.postgres.commands.store import PostgresStore
from sessions.postgres.connections import create_engine
from sessions.postgres.operations.dead_letters import failed_deliveries
from sessions.postgres.operations.deliveries import find_delivery
from sessions.rules import dispatch
from tests.support.json_calls import json_calls
from tests.support.stores.effects import delivery, memories, outcome_of
from tests.support.stores.inbox import drain, entry, push
from worker.dead_letters import FailedList
from worker.dead_letters import replay as replay_dead_letter
from worker.drain import Drain
from worker.inbox import SEEN_SECONDS, read_entries
from worker.sweeper import Sweeper, wake_forgotten


@pytest.fixture
def trigger(engine: Engine, walk: str) -> Iterator[str]:
    """A trigger in the database that raises for one memory of the session."""
    name = f"poison_{secrets.token_hex(4)}"
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF new.session_id = '{walk}' AND new.key = 'poison' THEN RAISE EXCEPTION 'not this one'; END IF;
                RETURN new;
            END $$;
            CREATE TRIGGER {name} BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION {name}()
            """)
        )
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"DROP FUNCTION IF EXISTS {name} CASCADE"))


def dead_letters(redis: Redis) -> list[Job]:
    registry = open_queue(redis).failed_job_registry
    return [Job.fetch(job_id, connection=redis, serializer=JSONSerializer) for job_id in registry.get_job_ids()]


def trace_of(letter: Job) -> str:
    result = letter.latest_result()
    assert result is not None
    return str(result.exc_string)


def test_a_drain_describes_its_results(redis: Redis, engine: Engine, walk: str) -> None:
    entries = [entry("store_memory", walk, key=f"k{n}", content=n) for n in range(3)]
    done = drain(redis, engine, *entries, entry("delete_memory", walk, key="nope"))
    assert done == [f"drain shard {shard_of(walk):02d}: 3 applied, 1 rejected"]
    assert redis.xlen(inbox_key(shard_of(walk))) == 0
    assert not redis.exists(drain_pending_key(shard_of(walk)))
    assert 0 < redis.ttl(dedup_key("tests", entries[0].delivery_id)) <= SEEN_SECONDS


def test_a_repeated_delivery_takes_effect_once(redis: Redis, engine: Engine, walk: str) -> None:
    item = entry("store_memory", walk, content="x", key="k", delivery_id=f"d-{walk}")
    assert push(redis, item, item) == ["accepted", "duplicate"]
    drain(redis, engine)
    assert push(redis, item) == ["duplicate"]
    redis.flushdb()
    assert drain(redis, engine, item) == [f"drain shard {shard_of(walk):02d}: 1 duplicate"]
    assert memories(engine, walk) == {"k": 1}


def test_the_same_entry_twice_in_one_batch_is_applied_once(redis: Redis, engine: Engine, walk: str) -> None:
    item = entry("delegate_task", walk, description="x", allow_duplicate=True, delivery_id=f"d-{walk}", waits=True)
    assert push(redis, item, item) == ["accepted", "duplicate"]
    assert redis.xlen(inbox_key(shard_of(walk))) == 2
    assert drain(redis, engine)[shard_of(walk)].endswith("1 applied, 1 duplicate")


@pytest.mark.parametrize("waits", [(False, True), (True, False)])
def test_a_waiting_sender_of_a_repeat_gets_the_first_response(
    redis: Redis, engine: Engine, walk: str, waits: tuple[bool, bool]
) -> None:
    item = entry("store_memory", walk, key="k", content=1)
    drain(redis, engine, item)
    redis.delete(dedup_key(item.source, item.delivery_id))
    repeats = [msgspec.structs.replace(item, waits=one) for one in waits]
    with engine.connect() as connection:
        applied = SessionManager(PostgresStore(connection)).apply(repeats)
    [answer] = [msgspec.json.decode(one.response) for one in applied if one.entry.waits]
    assert answer["data"]["key"] == "k"


def test_another_body_under_the_same_id_is_a_conflict_now_and_later(redis: Redis, engine: Engine, walk: str) -> None:
    first = entry("store_memory", walk, key="k", content="one", delivery_id=f"d-{walk}")
    other = entry("store_memory", walk, key="k", content="two", delivery_id=f"d-{walk}", waits=True)
    drain(redis, engine, first)
    assert push(redis, other) == ["conflict"]
    redis.flushdb()
    listener = redis.pubsub()  # type: ignore[no-untyped-call]
    listener.subscribe("sr:outcomes")
    drain(redis, engine, other)
    announced = [m["data"] for _ in range(3) if (m := listener.get_message(timeout=1)) and m["type"] == "message"]
    outcome = msgspec.json.decode(announced[0], type=OutcomeMessage).outcome
    assert outcome is not None
    assert outcome.status == 409
    assert msgspec.json.decode(outcome.body)["error"]["code"] == "delivery_conflict"
    assert memories(engine, walk) == {"k": 1}
    found = delivery(engine, first.delivery_id)
    assert (found["status"], found["conflicts"]) == ("applied", 1)
    assert not redis.exists(dedup_key("tests", first.delivery_id))
    listener.close()


def test_a_waiting_sender_gets_the_response(redis: Redis, engine: Engine, walk: str) -> None:
    item = entry("store_memory", walk, key="k", content="x", waits=True)
    drain(redis, engine, item)
    outcome = outcome_of(redis, item)
    assert outcome["status"] == 200
    assert outcome["body"]["message"] == 'Stored the memory "k".'


def test_a_read_sees_what_was_sent_before_it(redis: Redis, engine: Engine, walk: str) -> None:
    read = entry("list_memories", walk, waits=True)
    entries = [entry("store_memory", walk, key="a", content=1), read, entry("store_memory", walk, key="b", content=2)]
    drain(redis, engine, *entries)
    body = outcome_of(redis, read)["body"]
    assert [memory["key"] for memory in body["data"]["memories"]] == ["a"]
    assert "result" not in delivery(engine, read.delivery_id)


def test_a_rule_that_raises_makes_one_dead_letter(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_for_one(state: Any, command: Any, context: Any) -> Any:
        if getattr(command, "key", None) == "poison":
            raise ZeroDivisionError("the rule is wrong")
        return dispatch.decide(state, command, context)

    monkeypatch.setattr("sessions.commands.command_runner.decide", raise_for_one)
    entries = [entry("store_memory", walk, key=f"k{n}" if n != 100 else "poison", content=n) for n in range(500)]
    done = drain(redis, engine, *entries)
    assert done == [f"drain shard {shard_of(walk):02d}: 499 applied, 1 failed"]
    assert len(memories(engine, walk)) == 499
    [letter] = dead_letters(redis)
    assert letter.args == ["tests", entries[100].delivery_id]
    assert "ZeroDivisionError: the rule is wrong" in trace_of(letter)
    monkeypatch.undo()
    with engine.connect() as connection:
        assert ("tests", entries[100].delivery_id) in failed_deliveries(connection, limit=100)
    replay(redis, engine, entries[100].delivery_id)
    assert memories(engine, walk)["poison"] == 1


def test_a_row_that_the_database_refuses_makes_one_dead_letter(
    redis: Redis, engine: Engine, walk: str, trigger: str
) -> None:
    entries = [entry("store_memory", walk, key=f"k{n}" if n != 300 else "poison", content=n) for n in range(500)]
    poison = entries[300].delivery_id
    assert drain(redis, engine, *entries) == [f"drain shard {shard_of(walk):02d}: 499 applied, 1 failed"]
    assert len(memories(engine, walk)) == 499
    assert delivery(engine, poison)["status"] == "failed"
    [letter] = dead_letters(redis)
    assert "RaiseException P0001" in trace_of(letter)
    with engine.connect() as connection:
        events = connection.execute(
            text("SELECT delivery_id, status FROM events WHERE session_id = :id ORDER BY event_id"), {"id": walk}
        ).all()
    assert [delivery_id for delivery_id, _ in events[1:]] == [item.delivery_id for item in entries]
    assert [status for _, status in events].count("failed") == 1
    replay(redis, engine, poison)
    assert delivery(engine, poison)["status"] == "failed"
    with engine.begin() as connection:
        connection.execute(text(f"DROP FUNCTION {trigger} CASCADE"))
    replay(redis, engine, poison)
    assert delivery(engine, poison)["status"] == "applied"
    assert memories(engine, walk)["poison"] == 1


@pytest.mark.parametrize("is_suspected", [False, True])
def test_reads_of_others_are_not_refused_when_entries_are_applied_one_by_one(
    redis: Redis, engine: Engine, walk: str, trigger: str, monkeypatch: pytest.MonkeyPatch, is_suspected: bool
) -> None:
    monkeypatch.setattr("sessions.commands.read_time_budget.TOGETHER_SECONDS", AT_ONCE_SECONDS)
    monkeypatch.setattr(
        "sessions.commands.read_time_budget.SMALLEST_SECONDS", AT_ONCE_SECONDS - 1e-6
    )  # One read uses up the time.
    poison = entry("store_memory", walk, key="poison", content=1)
    reads = [entry("list_memories", walk, source=f"s{number}") for number in range(3)]
    suspect = (poison.source, poison.delivery_id) if is_suspected else None
    with engine.connect() as connection:
        reading = ReadTimeBudget(lambda _: 0.0, is_alone=lambda _: False)
        manager = SessionManager(PostgresStore(connection), suspect=suspect, reading=reading)
        assert [item.status for item in manager.apply([poison, *reads])] == ["failed", "applied"]


def replay(redis: Redis, engine: Engine, delivery_id: str) -> None:
    """Requeue the job as an operator in the dashboard, and wait."""
    reconcile_now(redis, engine)
    [letter] = [job for job in dead_letters(redis) if job.args[1] == delivery_id]
    letter.requeue()
    with engine.connect() as connection:
        assert replay_dead_letter(redis, connection, source=letter.args[0], delivery_id=letter.args[1])
    letter.delete()
    drain(redis, engine)
    reconcile_now(redis, engine)


def reconcile_now(redis: Redis, engine: Engine) -> None:
    with engine.connect() as connection:
        FailedList(redis).reconcile(failed_deliveries(connection, limit=100))


def test_the_failed_list_contains_only_dead_letters(redis: Redis, engine: Engine, walk: str, trigger: str) -> None:
    item = entry("store_memory", walk, key="poison", content=1)
    drain(redis, engine, item)
    stray = open_queue(redis).enqueue("worker.jobs.drain", 3)
    open_queue(redis).failed_job_registry.add(stray, ttl=100, exc_string="abandoned")
    for job in dead_letters(redis):
        if job.args != [3]:
            job.delete()
    reconcile_now(redis, engine)
    assert ["tests", item.delivery_id] in [job.args for job in dead_letters(redis)]
    assert [3] not in [job.args for job in dead_letters(redis)]


def test_entries_wait_while_postgres_is_down(redis: Redis, settings: Settings) -> None:
    nowhere = msgspec.structs.replace(settings, database_url="postgresql://nobody@127.0.0.1:1/none")
    engine = create_engine(nowhere, application_name="tests", pool_size=1)
    item = entry("create_session", "later", title="x")
    [done] = drain(redis, engine, item)
    assert done == f"drain shard {shard_of('later'):02d}: 0 applied; Postgres unavailable, again in 0.5 s"
    assert redis.xlen(inbox_key(shard_of("later"))) == 1
    assert redis.pttl(drain_pending_key(shard_of("later"))) <= 500
    [done] = [Drain(redis, engine).run([shard_of("later")])]
    assert done.endswith("again in 1 s")


def test_a_shard_without_a_drain_job_gets_one(redis: Redis) -> None:
    push(redis, entry("create_session", "forgotten", title="x"))
    assert wake_forgotten(redis) == []
    redis.delete(drain_pending_key(shard_of("forgotten")))
    assert wake_forgotten(redis) == [shard_of("forgotten")]
    assert [job.args for job in open_queue(redis).jobs] == [[shard_of("forgotten")]]


def test_a_shard_locked_by_another_worker_is_skipped(redis: Redis, engine: Engine, walk: str) -> None:
    push(redis, entry("store_memory", walk, content=1))
    with engine.begin() as connection:
        lock = {"class": 7_305_002, "shard": shard_of(walk)}
        connection.execute(text("SELECT pg_advisory_xact_lock(:class, :shard)"), lock)
        assert Drain(redis, engine).run([shard_of(walk)]).endswith("0 applied; busy elsewhere")
    assert drain(redis, engine)[shard_of(walk)].endswith("1 applied")


def test_expired_leases_are_requeued_and_old_deliveries_deleted(redis: Redis, engine: Engine, walk: str) -> None:
    tasks = [entry("delegate_task", walk, task_id=f"t{n}", description=f"task {n}") for n in range(3)]
    drain(redis, engine, *tasks)
    with engine.begin() as connection:
        connection.execute(
            text("""
            UPDATE tasks SET status = 'running', attempt = CASE task_id WHEN 't1' THEN max_attempts ELSE 1 END,
                lease_expires_at = now() + CASE task_id WHEN 't2' THEN 1 ELSE -1 END * interval '1 minute'
            WHERE session_id = :id
            """),
            {"id": walk},
        )
        old = {"id": tasks[0].delivery_id}
        connection.execute(
            text("UPDATE deliveries SET decided_at = now() - '40 days'::interval WHERE delivery_id = :id"), old
        )
    Sweeper(redis, engine, retention_days=30).sweep()
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT task_id, status FROM tasks WHERE session_id = :id ORDER BY task_id"), {"id": walk}
        )
        assert [tuple(row) for row in rows] == [("t0", "pending"), ("t1", "failed"), ("t2", "running")]
        assert find_delivery(connection, source="tests", delivery_id=tasks[0].delivery_id) is None
        assert find_delivery(connection, source="tests", delivery_id=tasks[1].delivery_id) is not None


def test_a_deleted_session_leaves_no_content(redis: Redis, engine: Engine, walk: str, trigger: str) -> None:
    drain(
        redis,
        engine,
        entry("store_memory", walk, key="k", content="secret"),
        entry("store_memory", walk, key="k", content="secret two"),
        entry("store_memory", walk, key="poison", content="secret"),
        entry("conversation_chunk", walk, content="secret"),
        entry("delegate_task", walk, description="secret"),
        entry("add_artifact", walk, artifact_id="a", name="a", content="secret"),
        entry("add_artifact", walk, artifact_id="a", name="a", content="secret two"),
        entry("delete_session", walk, confirm=walk),
        entry("create_session", walk, title="Anew"),
    )
    tables = ("memories", "memory_revisions", "conversation_chunks", "tasks", "artifacts", "artifact_revisions")
    with engine.connect() as connection:
        for table in tables:
            assert connection.scalar(text(f"SELECT count(*) FROM {table} WHERE session_id = :id"), {"id": walk}) == 0
        kept = connection.execute(
            text("SELECT command, response, entry FROM deliveries WHERE session_id = :id ORDER BY position"),
            {"id": walk},
        ).all()
        events = connection.execute(text("SELECT event FROM events WHERE session_id = :id"), {"id": walk}).scalars()
        assert list(events) == ["create_session"]
    assert [row.command for row in kept[-2:]] == ["delete_session", "create_session"]
    assert all(row.command == "" and row.response is None and row.entry is None for row in kept[:-2])


def test_an_unreadable_entry_is_quarantined_and_blocks_no_other(redis: Redis, engine: Engine, walk: str) -> None:
    key = inbox_key(shard_of(walk))
    redis.xadd(key, {"e": b"{not json"})
    redis.xadd(key, {"other": "field"})
    assert drain(redis, engine, entry("store_memory", walk, content=1))[0].endswith(": 1 applied")
    assert redis.xlen(key) == 0
    rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange("sr:unreadable"))
    assert [fields[b"from"].split()[0].decode() for _, fields in rows] == [key, key]
    assert rows[0][1][b"e"] == b"{not json"


def test_an_unknown_command_becomes_a_dead_letter(redis: Redis, engine: Engine, walk: str) -> None:
    unknown = msgspec.structs.replace(entry("store_memory", walk, content=1), command="store_dream")
    known = entry("store_memory", walk, key="k", content=1)
    assert drain(redis, engine, unknown, known)[0].endswith(": 1 applied, 1 failed")
    assert delivery(engine, unknown.delivery_id)["status"] == "failed"
    assert memories(engine, walk) == {"k": 1}


def test_large_entries_are_drained_in_several_transactions(redis: Redis, engine: Engine, walk: str) -> None:
    """A megabyte of batches is seconds of work. Of more, each transaction would finish a part, or run out of time."""
    text = "word " * 20_000
    entries = [entry("conversation_chunk", walk, chunk_id=f"c{n}", content=text) for n in range(12)]
    push(redis, *entries)
    sizes = []
    while redis.xlen(inbox_key(shard_of(walk))):
        waiting = read_entries(redis, [shard_of(walk)]).entries
        sizes.append(len(waiting))
        redis.xdel(inbox_key(shard_of(walk)), *(item.stream_id for item in waiting))
    assert sizes == [10, 2]


def test_a_transaction_ends_in_time_and_the_next_continues(redis: Redis, engine: Engine, walk: str) -> None:
    entries = [entry("store_memory", walk, key=f"k{n}", content=n) for n in range(5)]
    for number in range(5):
        with engine.begin() as connection:
            applied = SessionManager(PostgresStore(connection), seconds=0).apply(entries[number:])
        assert [item.entry.delivery_id for item in applied] == [entries[number].delivery_id]
    assert len(memories(engine, walk)) == 5


def test_reads_of_one_batch_share_a_time_limit(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions.commands.command_runner.READ_SECONDS", -1.0)
    reads = [{"command": "list_memories"}, {"command": "search", "data": {"q": "x"}}]
    batch = entry("batch", walk, mode="partial", commands=reads, waits=True)
    drain(redis, engine, batch)
    results = outcome_of(redis, batch)["body"]["data"]["results"]
    assert [result["error"]["code"] for result in results] == ["too_slow", "too_slow"]


def test_a_write_that_times_out_becomes_a_dead_letter_and_blocks_no_other(
    redis: Redis, engine: Engine, settings: Settings, walk: str, trigger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            CREATE OR REPLACE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF new.session_id = '{walk}' AND new.key = 'poison' THEN PERFORM pg_sleep(30); END IF;
                RETURN new;
            END $$
            """)
        )
    monkeypatch.setattr("sessions.postgres.connections.STATEMENT_TIMEOUT_SECONDS", 1)
    impatient = create_engine(settings, application_name="tests", pool_size=1)
    entries = [entry("store_memory", walk, key=f"k{n}" if n != 10 else "poison", content=n) for n in range(20)]
    [told] = drain(redis, impatient, *entries)  # On a busy machine, the drain may have used up its time.
    assert told.removesuffix("; more to come") == f"drain shard {shard_of(walk):02d}: 19 applied, 1 failed"
    assert delivery(engine, entries[10].delivery_id)["status"] == "failed"
    assert len(memories(engine, walk)) == 19
    impatient.dispose()


def test_a_write_that_times_out_once_is_retried_and_applied(
    redis: Redis, engine: Engine, settings: Settings, walk: str, trigger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended Postgres cancels current statements when it resumes."""
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            CREATE SEQUENCE {trigger}_calls;
            CREATE OR REPLACE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF new.session_id = '{walk}' AND nextval('{trigger}_calls') = 1 THEN PERFORM pg_sleep(30); END IF;
                RETURN new;
            END $$
            """)
        )
    monkeypatch.setattr("sessions.postgres.connections.STATEMENT_TIMEOUT_SECONDS", 1)
    impatient = create_engine(settings, application_name="tests", pool_size=1)
    item = entry("store_memory", walk, key="k", content="x")
    [said] = drain(redis, impatient, item)
    assert "again in" in said
    assert memories(engine, walk) == {}
    assert f"drain shard {shard_of(walk):02d}: 1 applied" in drain(redis, impatient)
    assert memories(engine, walk) == {"k": 1}
    assert dead_letters(redis) == []
    impatient.dispose()
    with engine.begin() as connection:
        connection.execute(text(f"DROP SEQUENCE {trigger}_calls"))


def test_responses_are_redacted_before_their_entries_are_acknowledged(engine: Engine, walk: str) -> None:
    """The acknowledgement sends its responses unchanged."""
    told = entry("store_memory", walk, key="k", content=1, waits=True)
    not_told = entry("store_memory", walk, key="k", content=2, waits=True)
    unheard = entry("store_memory", walk, key="k", content=3)
    blind = [msgspec.structs.replace(item, scopes=["send"]) for item in (not_told, unheard)]
    with engine.connect() as connection, connection.begin() as transaction:
        applied = SessionManager(PostgresStore(connection)).apply([told, *blind])
        transaction.rollback()
    assert [item.redacted is not None for item in applied] == [False, True, False]
    assert b"revision" in bytes(applied[1].response)
    assert b"revision" not in bytes(applied[1].redacted or b"revision")


def test_a_command_is_decoded_once_and_its_response_encoded_once(redis: Redis, engine: Engine, walk: str) -> None:
    # A new source gets no task updates, which would be encoded, too.
    push(redis, entry("store_memory", walk, source=f"once-{walk}", key="k", content={"a": [1, 2]}, waits=True))
    with json_calls() as calls:
        Drain(redis, engine).run([shard_of(walk)])
    once = [
        "decode in worker.inbox.read_entries",
        "decode in models.decoding.strict.decode_as",
        "encode in sessions.commands.manager._succeeded",
        "encode in worker.outcomes._encode",
    ]
    assert {call: calls.count(call) for call in once} == dict.fromkeys(once, 1)
    of_the_answer = [call for call in calls if call.rpartition(".")[0].endswith(("worker.outcomes", "redaction"))]
    assert of_the_answer == ["encode in worker.outcomes._encode", "encode in worker.outcomes._message"]


@pytest.mark.parametrize("point", ["after_read", "before_commit", "after_commit", "after_delete"])
def test_a_worker_that_pauses_while_another_drains_its_shard_loses_and_repeats_nothing(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    first = entry("store_memory", walk, key="first", content=1, waits=True)
    meanwhile = entry("store_memory", walk, key="meanwhile", content=2)
    described: list[str] = []

    def pause(reached: str, _: str) -> None:
        if reached == point and not described:
            push(redis, meanwhile)
            described.append("paused")
            described.append(Drain(redis, engine).run([shard_of(walk)]))

    monkeypatch.setattr("worker.drain.reach", pause)
    described += drain(redis, engine, first)
    is_locked = point in ("after_read", "before_commit")
    assert described[1].endswith("busy elsewhere") == is_locked
    assert memories(engine, walk) == {"first": 1, "meanwhile": 1}
    assert outcome_of(redis, first)["status"] == 200
    assert redis.xlen(inbox_key(shard_of(walk))) == 0
    assert redis.hgetall(BACKLOG_KEY) == redis.hgetall(BACKLOG_BYTES_KEY) == {}
    with engine.connect() as connection:
        journal = text("SELECT delivery_id FROM events WHERE session_id = :id ORDER BY event_id")
        told = connection.execute(journal, {"id": walk}).scalars().all()
    assert told[1:] == [first.delivery_id, meanwhile.delivery_id]
