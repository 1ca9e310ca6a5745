"""The time budget of reads sent as commands: for one source, for all together, and its recovery over time."""

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


def test_each_source_and_all_together_have_a_time_budget() -> None:
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


def test_a_source_alone_may_read_until_the_transaction_ends() -> None:
    reading = ReadTimeBudget(lambda source: 0.0 if source == "fresh" else 10.0, is_alone=lambda name: name != "other")
    assert reading.left("fresh") == reading.left("alone") == TOGETHER_SECONDS
    with pytest.raises(TooManyRequests):
        reading.left("other")
    assert not reading.is_over
    reading.spend("alone", TOGETHER_SECONDS)
    assert reading.is_over


def test_a_source_alone_incurs_no_debt_for_reads_beyond_its_share() -> None:
    """Otherwise its debt would grow with each such read, and its reads would be refused for minutes once others
    come."""
    reading = ReadTimeBudget(lambda source: AT_ONCE_SECONDS if source == "alone" else 0.0, is_alone=lambda _: True)
    for source in ("alone", "within its time"):
        reading.left(source)
        reading.spend(source, 0.1)
    assert reading.taken == {"within its time": pytest.approx(0.1)}


def test_a_read_does_not_begin_with_the_rest_of_the_time_of_earlier_entries() -> None:
    """It would time out, though its source has no debt. The next transaction has the full time."""
    reading = ReadTimeBudget(lambda _: 0.0, is_alone=lambda _: False)
    assert reading.left("a") == AT_ONCE_SECONDS
    reading.spend("a", TOGETHER_SECONDS - AT_ONCE_SECONDS - 0.01)
    assert (reading.is_over, reading.left("b")) == (False, AT_ONCE_SECONDS)
    reading.spend("a", 0.02)
    assert reading.left("b") < AT_ONCE_SECONDS
    assert reading.is_over


def test_a_full_budget_and_its_refill_delay_others_by_at_most_a_second() -> None:
    assert AT_ONCE_SECONDS / (1 - SHARE) <= 1.0


def test_debts_add_up_across_workers_and_shrink_over_time(redis: Redis) -> None:
    add_debts(redis, {"a": 20, "b": 10})
    add_debts(redis, {"a": 20})
    add_debts(redis, {})
    assert 30 < owed_seconds(redis, "a") <= 40
    assert 5 < owed_seconds(redis, "b") <= 10
    assert owed_seconds(redis, "c") == 0
    assert 0 < redis.pttl("sr:reading:a") <= 40 / SHARE * 1000


@pytest.fixture
def walk(redis: Redis, walk: str) -> str:
    """A session that exists, of which `tests` has read so much that its budget is used up."""
    add_debts(redis, {"tests": 10.0})
    return walk


def of_other(session_id: str) -> Entry:
    """Return an entry of another waiting sender, behind the reads."""
    return entry("store_memory", session_id, key="other", content="", source="other")


def rejections(engine: Engine, session_id: str) -> int:
    """Return the number of rejections in the journal."""
    statement = text("SELECT count(*) FROM events WHERE session_id = :id AND status = 'rejected'")
    with engine.connect() as connection:
        return connection.scalar(statement, {"id": session_id}) or 0


@pytest.mark.parametrize(("is_alone", "code"), [(True, "too_slow"), (False, "reads_too_slow")])
def test_a_slow_read_is_final_only_after_the_time_that_a_source_has_alone(
    redis: Redis, engine: Engine, walk: str, is_alone: bool, code: str
) -> None:
    redis.delete("sr:reading:tests")
    read = entry("search", walk, q="blocked", waits=True)
    with engine.connect() as other:
        other.execute(text("LOCK TABLE passages IN ACCESS EXCLUSIVE MODE"))
        drain(redis, engine, read, *([] if is_alone else [entry("list_memories", walk, source="other")]))
    assert outcome_of(redis, read)["body"]["error"]["code"] == code


@pytest.mark.parametrize("mode", ["atomic", "partial"])
def test_a_batch_applies_its_writes_even_without_time_for_its_reads(
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
    assert rejections(engine, walk) == 0, "reads of a batch must not be recorded in the journal"


def test_a_read_refused_for_lack_of_time_is_done_when_sent_again(redis: Redis, engine: Engine, walk: str) -> None:
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


def test_a_source_over_its_budget_may_read_only_while_it_is_alone(redis: Redis, engine: Engine, walk: str) -> None:
    alone = entry("list_memories", walk, waits=True)
    drain(redis, engine, alone)
    assert outcome_of(redis, alone)["status"] == 200
    [told] = drain(redis, engine, entry("list_memories", walk), entry("list_memories", walk, source="other"))
    assert "1 applied, 1 rejected" in told


def test_a_transaction_ends_with_its_read_budget_and_the_next_continues(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions.commands.read_time_budget.TOGETHER_SECONDS", AT_ONCE_SECONDS)
    monkeypatch.setattr("sessions.commands.read_time_budget.SMALLEST_SECONDS", AT_ONCE_SECONDS - 1e-6)
    reads = [entry("list_memories", walk, source=f"s{number}", waits=True) for number in range(4)]
    assert "4 applied" in drain(redis, engine, *reads)[0]


def test_a_read_during_a_redis_outage_is_retried_and_not_dead_lettered(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis goes down after the entries were read from it, and before the first read asks for its source's debt."""
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


def test_a_time_limit_that_cannot_be_lifted_fails_like_any_statement(engine: Engine) -> None:
    """On a busy machine the statement that lifts the limit may itself reach it, which does not make the read a poison
    command."""
    with engine.connect() as connection:
        process = connection.scalar(text("SELECT pg_backend_pid()"))
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
        with pytest.raises(OperationalError):
            lift_time_limit(connection)
