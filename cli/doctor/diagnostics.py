"""What a look at a relay and its servers has found, and what it means: each trouble with its remedy in plain words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from cli.doctor.relay_health import Status, format_bytes, format_seconds
from cli.output.humanize import count

SIGNATURE_SECONDS = 300
"""A sender's clock may be off by that much for its signatures to be taken."""
CLOCK_SECONDS = 30
"""Clocks that are kept differ by less."""
STALLED_SECONDS = 30.0
"""What is accepted is applied within seconds, unless nobody does it."""
FULL_MEMORY, HIGH_MEMORY = 0.7, 0.5
"""Of Redis' memory: above the first no webhooks are taken."""


class Finding(NamedTuple):
    """One check, and what came of it."""

    check: str
    state: Literal["ok", "warning", "trouble"]
    detail: str
    remedy: str = ""


def judge(status: Status) -> Iterator[Finding]:
    """The findings for what a relay tells, or what was seen directly; nothing for what is not known."""
    checks: tuple[tuple[str, Callable[[Any, Status], Iterator[Finding]]], ...] = (
        ("webhooks", _webhooks),
        ("redis", _redis),
        ("postgres", _postgres),
        ("workers", _workers),
        ("inbox", _inbox),
        ("postgres", _dead_letters),
    )
    for name, check in checks:
        if (part := status.get(name)) is not None:
            yield from check(part, status)


def judge_clock(now: str) -> Finding:
    """Whether the relay's clock and this one agree."""
    ahead = (datetime.now(UTC) - datetime.fromisoformat(now)).total_seconds()
    told = f"This machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the relay's."
    remedy = "Have both machines set their clocks by NTP."
    if abs(ahead) > SIGNATURE_SECONDS:
        return Finding("clock", "trouble", f"{told} Signatures made here are refused.", remedy)
    if abs(ahead) > CLOCK_SECONDS:
        return Finding("clock", "warning", told, remedy)
    return Finding("clock", "ok", "It agrees with the relay's.")


def judge_disk(free: int, share: float, place: str) -> Finding:
    """Whether there is room where the data are."""
    detail = f"{format_bytes(free)} free where {place} is ({share:.0%})."
    if free < 2**30 or share < 0.03:
        return Finding("disk", "trouble", detail, "Make room: with a full disk Redis and Postgres end.")
    if share < 0.1:
        return Finding("disk", "warning", detail, "Make room soon: with a full disk Redis and Postgres end.")
    return Finding("disk", "ok", detail)


def _webhooks(webhooks: dict[str, Any], _: Status) -> Iterator[Finding]:
    if webhooks["taken"]:
        yield Finding("webhooks", "ok", "They are taken.")
    else:
        yield Finding("webhooks", "trouble", f"They are refused: {webhooks['reason']}", "See to the troubles below.")


def _redis(redis: dict[str, Any], _: Status) -> Iterator[Finding]:
    if redis["state"] != "ok":
        yield Finding(
            "redis",
            "trouble",
            "It does not answer; nothing can be accepted.",
            "Start Redis or Valkey, or mend REDIS_URL. What it had on its disk is there again then.",
        )
        return
    yield Finding("redis", "ok", f"It answers, version {redis.get('version', 'unknown')}.")
    if "durable" not in redis:
        return
    if redis["durable"]:
        yield Finding("redis durability", "ok", "What is accepted is on its disk.")
    else:
        yield Finding(
            "redis durability",
            "trouble",
            f"{redis['weakness']}. What was accepted can be lost.",
            "Set `appendonly yes`, `appendfsync always` and `maxmemory-policy noeviction`, in its configuration file, "
            "and by CONFIG SET while it runs.",
        )
    yield _memory(redis)


def _memory(redis: dict[str, Any]) -> Finding:
    share, used = redis["memory_share"], format_bytes(redis["memory_bytes"])
    if share is None:
        return Finding(
            "redis memory",
            "warning",
            f"{used} used, and there is no limit.",
            "Set `maxmemory` to what the machine can spare; else the system ends Redis when there is none left.",
        )
    detail = f"{used} of {format_bytes(redis['memory_limit_bytes'])} used ({share:.0%})."
    if share > FULL_MEMORY:
        remedy = "Let the workers drain what waits, or raise `maxmemory`. Until then webhooks are refused."
        return Finding("redis memory", "trouble", detail, remedy)
    if share > HIGH_MEMORY:
        remedy = "Above 70 % webhooks are refused: see what waits, or raise `maxmemory`."
        return Finding("redis memory", "warning", detail, remedy)
    return Finding("redis memory", "ok", detail)


def _postgres(postgres: dict[str, Any], _: Status) -> Iterator[Finding]:
    if postgres["state"] != "ok":
        yield Finding(
            "postgres",
            "trouble",
            "It does not answer. Webhooks are taken and wait; nothing can be read.",
            "Start Postgres, or mend DATABASE_URL. What waits is applied then, in order.",
        )
        return
    yield Finding("postgres", "ok", f"It answers, version {postgres.get('version', 'unknown')}.")
    if "revision" not in postgres:
        return
    yield _schema(postgres["revision"], postgres["needed_revision"])
    if postgres["durable"]:
        yield Finding("postgres durability", "ok", "What is applied is on its disk.")
    else:
        yield Finding(
            "postgres durability",
            "trouble",
            f"{postgres['weakness']}: what was applied can be lost in a crash, and is not sent again.",
            "Set `fsync` and `synchronous_commit` to on, as they are by default.",
        )


def _schema(revision: str | None, needed: str) -> Finding:
    if revision == needed:
        return Finding("schema", "ok", f"The tables are at {revision}, as needed.")
    if revision is not None and revision > needed:
        detail = f"The tables are at {revision}, newer than the {needed} of the program."
        return Finding("schema", "trouble", detail, "Update the programs that run: app, workers and session-cli.")
    found = f"The tables are at {revision}" if revision else "There are no tables"
    detail = f"{found}; {needed} is needed. Workers wait until then."
    return Finding("schema", "trouble", detail, "Run `session-cli db upgrade` (or `python -m alembic upgrade head`).")


def _workers(workers: dict[str, Any], _: Status) -> Iterator[Finding]:
    alive, has_sweeper = workers["alive"], workers["sweeper"]
    detail = f"{count(alive, 'worker')}, {workers['busy']} busy, and {'a' if has_sweeper else 'no'} sweeper."
    if alive and has_sweeper:
        yield Finding("workers", "ok", detail)
    elif has_sweeper:
        remedy = "Start `python -m worker` again. If somebody deleted RQ's keys (rq:*), they work, but are not listed."
        yield Finding("workers", "trouble", f"None is listed: {detail}", remedy)
    else:
        remedy = "Start `python -m worker`, and see its log: it waits while Postgres is away or its schema is behind."
        yield Finding("workers", "trouble", f"None works: {detail} What is accepted waits.", remedy)


def _inbox(inbox: dict[str, Any], status: Status) -> Iterator[Finding]:
    waiting, limit, oldest = inbox["waiting"], inbox["limit"], inbox["oldest_seconds"]
    since = f", the oldest for {format_seconds(oldest)}" if oldest is not None else ""
    detail = f"{count(waiting, 'command')} of {limit:,} wait{since}."
    if waiting >= limit:
        yield Finding(
            "backlog",
            "trouble",
            f"It is full: {detail} New webhooks are refused.",
            "See that workers run and Postgres answers; start more workers, or raise MAX_BACKLOG if Redis has memory.",
        )
    elif waiting >= limit / 2:
        remedy = "See that workers run and Postgres answers. One sender alone may fill half of it, and is refused then."
        yield Finding("backlog", "warning", detail, remedy)
    elif oldest is not None and oldest > STALLED_SECONDS and (status.get("postgres") or {}).get("state") == "ok":
        remedy = "See the worker's log for what stops this shard: something may hold its lock."
        yield Finding("backlog", "warning", detail, remedy)
    else:
        yield Finding("backlog", "ok", detail)


def _dead_letters(postgres: dict[str, Any], _: Status) -> Iterator[Finding]:
    failed = postgres.get("dead_letters")
    if failed:
        yield Finding(
            "dead letters",
            "warning",
            f"{count(failed, 'command')} could not be applied.",
            "`session-cli dead-letters list` shows why; mend the cause, then replay or discard them.",
        )
    elif failed is not None:
        yield Finding("dead letters", "ok", "There are none.")
    if parked := postgres.get("parked_events"):
        yield Finding(
            "parked events",
            "warning",
            f"{count(parked, 'event')} came while no changes were taken, and can be replayed.",
            "`session-cli dead-letters list --parked` shows them; resume the session, then replay or discard them.",
        )
