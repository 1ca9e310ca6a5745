"""The time that reads sent as commands may take: of one source, of all together, and after a while again."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from models.errors import TooManyRequests
from models.queue.inbox import Entry, shard_of
from sessions.commands.read_time_budget import AT_ONCE_SECONDS, SHARE, TOGETHER_SECONDS, ReadTimeBudget
from sessions.postgres.reads.read_timeout import lift_time_limit
from tests.support.ports import free_port
from tests.support.stores.effects import delivery, memories, outcome_of
from tests.support.stores.inbox import drain, entry, push
from worker.read_time_debts import add_debts, owed_seconds


def test_a_source_has_its_time_and_all_have_theirs_together() -> None:
    reading = ReadTimeBudget(lambda source: {"debtor": 0.2}.get(source, 0.0), is_alone=lambda _: False)
    assert reading.left("a") == AT_ONCE_SECONDS
    assert reading.left("debtor") == pytest.approx(AT_ONCE_SECONDS - 0.2)
    reading.spend("a", 0.2)
    assert reading.left("a") == pytest.approx(AT_ONCE_SECONDS - 0.2)
    reading.spend("a", 0.2)
    with pytest.raises(TooManyRequests) as caught:
        reading.left("a")
    assert (caught.value.code, caught.value.retryable) == ("reads_too_slow", True)
    assert reading.left("b") == pytest.approx(TOGETHER_SECONDS - 0.4)
    assert reading.taken == {"a": pytest.approx(0.4)}


def test_while_nobody_else_waits_a_source_is_refused_nothing_until_the_transaction_ends() -> None:
    reading = ReadTimeBudget(lambda _: 10.0, is_alone=lambda source: source == "alone")
    assert reading.left("alone") == TOGETHER_SECONDS
    with pytest.raises(TooManyRequests):
        reading.left("other")
    assert not reading.is_over
    reading.spend("alone", TOGETHER_SECONDS)
    assert reading.is_over


def test_a_source_that_reads_while_nobody_else_waits_owes_nothing_for_it_when_others_come() -> None:
    """Its debt would grow with each read that it is granted beyond its time, and then refuse it for minutes."""
    reading = ReadTimeBudget(lambda source: AT_ONCE_SECONDS if source == "alone" else 0.0, is_alone=lambda _: True)
    for source in ("alone", "within its time"):
        reading.left(source)
        reading.spend(source, 0.1)
    assert reading.taken == {"within its time": pytest.approx(0.1)}


def test_no_read_of_another_entry_is_begun_with_what_earlier_ones_have_left_of_the_time() -> None:
    """It would be refused for lack of it, though its source owes nothing; the next transaction has all of it."""
    reading = ReadTimeBudget(lambda _: 0.0, is_alone=lambda _: True)
    assert reading.left("a") == AT_ONCE_SECONDS
    reading.spend("a", TOGETHER_SECONDS - AT_ONCE_SECONDS - 0.01)
    assert (reading.is_over, reading.left("b")) == (False, AT_ONCE_SECONDS)
    reading.spend("a", 0.02)
    assert reading.left("b") < AT_ONCE_SECONDS
    assert reading.is_over


def test_with_what_it_has_at_once_and_is_given_back_others_wait_for_a_second() -> None:
    assert AT_ONCE_SECONDS / (1 - SHARE) <= 1.0


def test_debts_add_up_for_all_workers_and_are_paid_back_by_time(redis: Redis) -> None:
    add_debts(redis, {"a": 20, "b": 10})
    add_debts(redis, {"a": 20})
    add_debts(redis, {})
    assert 30 < owed_seconds(redis, "a") <= 40
    assert 5 < owed_seconds(redis, "b") <= 10
    assert owed_seconds(redis, "c") == 0
    assert 0 < redis.pttl("sr:reading:a") <= 40 / SHARE * 1000


@pytest.fixture
def walk(redis: Redis, walk: str) -> str:
    """A session that exists, of which `tests` has read so much that it owes its time."""
    add_debts(redis, {"tests": 10.0})
    return walk


def of_other(session_id: str) -> Entry:
    """What somebody else waits for, behind the reads."""
    return entry("store_memory", session_id, key="other", content="", source="other")


def rejections(engine: Engine, session_id: str) -> int:
    """How many the journal tells of."""
    statement = text("SELECT count(*) FROM events WHERE session_id = :id AND status = 'rejected'")
    with engine.connect() as connection:
        return connection.scalar(statement, {"id": session_id}) or 0


@pytest.mark.parametrize("mode", ["atomic", "partial"])
def test_a_batch_does_what_it_changes_also_when_there_is_no_time_for_its_reads(
    redis: Redis, engine: Engine, walk: str, mode: str
) -> None:
    commands = [
        {"command": "store_memory", "data": {"key": "before", "content": 1}},
        {"command": "list_memories"},
        {"command": "store_memory", "data": {"key": "after", "content": 2}},
    ]
    batch = entry("batch", walk, mode=mode, commands=commands, waits=True)
    drain(redis, engine, batch, of_other(walk))
    body = outcome_of(redis, batch)["body"]
    assert (body["status"], body["data"]["processed"], body["data"]["failed"]) == ("success", 2, 1)
    error = body["data"]["results"][1]["error"]
    assert (error["code"], error["retryable"]) == ("reads_too_slow", True)
    assert memories(engine, walk) == {"before": 1, "after": 1, "other": 1}
    assert rejections(engine, walk) == 0, "hundreds of reads in a batch are no news of the session"


def test_a_read_for_which_there_was_no_time_is_done_when_it_comes_again(
    redis: Redis, engine: Engine, walk: str
) -> None:
    def read() -> Entry:
        return entry("list_memories", walk, delivery_id=f"read-{walk}", waits=True)

    first, second = read(), read()
    drain(redis, engine, first, of_other(walk))
    assert outcome_of(redis, first)["status"] == 429
    assert (delivery(engine, first.delivery_id)["status"], rejections(engine, walk)) == ("rejected", 0)
    redis.delete("sr:reading:tests")
    drain(redis, engine, second, of_other(walk))
    assert outcome_of(redis, second)["status"] == 200
    assert delivery(engine, first.delivery_id)["status"] == "applied"


def test_reads_are_done_while_nobody_else_waits_and_those_of_others_always(
    redis: Redis, engine: Engine, walk: str
) -> None:
    alone = entry("list_memories", walk, waits=True)
    drain(redis, engine, alone)
    assert outcome_of(redis, alone)["status"] == 200
    [told] = drain(redis, engine, entry("list_memories", walk), entry("list_memories", walk, source="other"))
    assert "1 applied, 1 rejected" in told


def test_a_transaction_ends_when_the_time_for_reads_is_over_and_the_next_goes_on(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions.commands.read_time_budget.TOGETHER_SECONDS", AT_ONCE_SECONDS)
    monkeypatch.setattr("sessions.commands.read_time_budget.SMALLEST_SECONDS", AT_ONCE_SECONDS - 1e-6)
    reads = [entry("list_memories", walk, source=f"s{number}", waits=True) for number in range(4)]
    assert "4 applied" in drain(redis, engine, *reads)[0]


def test_a_read_that_is_due_while_redis_is_away_is_left_for_later_and_not_buried(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was killed after the entries were read from it, and before the first read asked what its source owes."""
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}")
    monkeypatch.setattr("worker.drain.owed_seconds", lambda _, source: owed_seconds(nowhere, source))
    write, read = entry("store_memory", walk, key="k", content=1), entry("list_memories", walk, waits=True)
    push(redis, write, read)
    with pytest.raises(RedisConnectionError):
        drain(redis, engine)
    monkeypatch.undo()
    [told] = [told for told in drain(redis, engine) if told.startswith(f"drain shard {shard_of(walk):02d}")]
    assert told.endswith(": 2 applied")
    assert outcome_of(redis, read)["status"] == 200


def test_a_time_limit_that_cannot_be_lifted_fails_as_any_statement_does(engine: Engine) -> None:
    """On a busy machine it is at times reached by the very statement that lifts it, which makes no read poison."""
    with engine.connect() as connection:
        process = connection.scalar(text("SELECT pg_backend_pid()"))
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
        with pytest.raises(OperationalError):
            lift_time_limit(connection)
