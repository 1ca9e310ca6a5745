"""Turns the status of a relay and its servers into findings: problems and warnings, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from cli.doctor.relay_health import Status, format_bytes, format_search, format_seconds
from cli.output.humanize import count

SIGNATURE_SECONDS = 300
"""The clock difference up to which a relay accepts signatures."""
CLOCK_SECONDS = 30
"""The clock difference that synchronized machines stay below."""
STALLED_SECONDS = 30.0
"""The age from which a waiting command counts as stalled; healthy workers apply commands within seconds."""
FULL_MEMORY, HIGH_MEMORY = 0.7, 0.5
"""Shares of Redis' memory. Above the first, webhooks are rejected."""


class Finding(NamedTuple):
    """The result of one check."""

    check: str
    state: Literal["ok", "warning", "trouble"]
    detail: str
    remedy: str = ""


def judge(status: Status) -> Iterator[Finding]:
    """Yield the findings for a status, skipping unknown parts."""
    checks: tuple[tuple[str, Callable[[Any, Status], Iterator[Finding]]], ...] = (
        ("webhooks", _webhooks),
        ("redis", _redis),
        ("postgres", _postgres),
        ("workers", _workers),
        ("inbox", _inbox),
        ("postgres", _dead_letters),
        ("postgres", _search),
    )
    for name, check in checks:
        if (part := status.get(name)) is not None:
            yield from check(part, status)


def judge_clock(now: str) -> Finding:
    """Compare this machine's clock with the relay's."""
    ahead = (datetime.now(UTC) - datetime.fromisoformat(now)).total_seconds()
    detail = f"This machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the relay's."
    remedy = "Synchronize both clocks with NTP."
    if abs(ahead) > SIGNATURE_SECONDS:
        return Finding("clock", "trouble", f"{detail} The relay rejects signatures made here.", remedy)
    if abs(ahead) > CLOCK_SECONDS:
        return Finding("clock", "warning", detail, remedy)
    return Finding("clock", "ok", "In sync with the relay.")


def judge_disk(free: int, share: float, place: str) -> Finding:
    """Check the free space of the data directory."""
    detail = f"{format_bytes(free)} free ({share:.0%}) on the disk of {place}."
    if free < 2**30 or share < 0.03:
        return Finding("disk", "trouble", detail, "Free up space: Redis and Postgres stop when the disk is full.")
    if share < 0.1:
        return Finding("disk", "warning", detail, "Free up space soon: Redis and Postgres stop when the disk is full.")
    return Finding("disk", "ok", detail)


def _webhooks(webhooks: dict[str, Any], _: Status) -> Iterator[Finding]:
    if webhooks["taken"]:
        yield Finding("webhooks", "ok", "Accepted.")
    else:
        yield Finding("webhooks", "trouble", f"Rejected: {webhooks['reason']}", "Fix the problems below.")


def _redis(redis: dict[str, Any], _: Status) -> Iterator[Finding]:
    if redis["state"] != "ok":
        yield Finding(
            "redis",
            "trouble",
            "Not responding. No webhooks can be accepted.",
            "Start Redis or Valkey, or correct REDIS_URL. Accepted webhooks are still on its disk.",
        )
        return
    yield Finding("redis", "ok", f"Responding, version {redis.get('version', 'unknown')}.")
    if "durable" not in redis:
        return
    if redis["durable"]:
        yield Finding("redis durability", "ok", "Accepted webhooks are written to disk.")
    else:
        yield Finding(
            "redis durability",
            "trouble",
            f"{redis['weakness']}. Accepted webhooks can be lost.",
            "Set `appendonly yes`, `appendfsync always` and `maxmemory-policy noeviction` in its configuration file, "
            "and with CONFIG SET on the running server.",
        )
    yield _memory(redis)


def _memory(redis: dict[str, Any]) -> Finding:
    share, used = redis["memory_share"], format_bytes(redis["memory_bytes"])
    if share is None:
        return Finding(
            "redis memory",
            "warning",
            f"{used} used, without a limit.",
            "Set `maxmemory` to what the machine can spare. Otherwise the kernel kills Redis when memory runs out.",
        )
    detail = f"{used} of {format_bytes(redis['memory_limit_bytes'])} used ({share:.0%})."
    if share > FULL_MEMORY:
        remedy = "Let the workers drain the backlog, or raise `maxmemory`. Until then webhooks are rejected."
        return Finding("redis memory", "trouble", detail, remedy)
    if share > HIGH_MEMORY:
        remedy = "Check the backlog, or raise `maxmemory`. Above 70 % webhooks are rejected."
        return Finding("redis memory", "warning", detail, remedy)
    return Finding("redis memory", "ok", detail)


def _postgres(postgres: dict[str, Any], _: Status) -> Iterator[Finding]:
    if postgres["state"] != "ok":
        yield Finding(
            "postgres",
            "trouble",
            "Not responding. Webhooks are accepted and queued; reads fail.",
            "Start Postgres, or correct DATABASE_URL. Queued commands are then applied in order.",
        )
        return
    yield Finding("postgres", "ok", f"Responding, version {postgres.get('version', 'unknown')}.")
    if "revision" not in postgres:
        return
    yield _schema(postgres["revision"], postgres["needed_revision"])
    if postgres["durable"]:
        yield Finding("postgres durability", "ok", "Applied commands are written to disk.")
    else:
        yield Finding(
            "postgres durability",
            "trouble",
            f"{postgres['weakness']}: a crash can lose applied commands, which are not sent again.",
            "Set `fsync` and `synchronous_commit` to on, their defaults.",
        )


def _schema(revision: str | None, needed: str) -> Finding:
    if revision == needed:
        return Finding("schema", "ok", f"Up to date, revision {revision}.")
    if revision is not None and revision > needed:
        detail = f"Revision {revision} is newer than this program's {needed}."
        return Finding("schema", "trouble", detail, "Update the app, the workers and session-cli.")
    found = f"Revision {revision} is out of date" if revision else "The database has no tables"
    detail = f"{found}; {needed} is required. Workers wait for the migration."
    return Finding("schema", "trouble", detail, "Run `session-cli db upgrade` (or `python -m alembic upgrade head`).")


def _workers(workers: dict[str, Any], _: Status) -> Iterator[Finding]:
    alive, has_sweeper = workers["alive"], workers["sweeper"]
    detail = f"{count(alive, 'worker')} ({workers['busy']} busy), sweeper {'running' if has_sweeper else 'missing'}."
    if alive and has_sweeper:
        yield Finding("workers", "ok", detail)
    elif has_sweeper:
        remedy = "Restart `python -m worker`. If RQ's keys (rq:*) were deleted, workers run but are not registered."
        yield Finding("workers", "trouble", f"No workers registered: {detail}", remedy)
    else:
        remedy = "Start `python -m worker` and check its log: it waits while Postgres or its schema is not ready."
        yield Finding("workers", "trouble", f"Not running: {detail} Accepted commands wait.", remedy)


def _inbox(inbox: dict[str, Any], status: Status) -> Iterator[Finding]:
    waiting, limit, oldest = inbox["waiting"], inbox["limit"], inbox["oldest_seconds"]
    since = f", the oldest for {format_seconds(oldest)}" if oldest is not None else ""
    detail = f"{count(waiting, 'command')} of {limit:,} waiting{since}."
    if waiting >= limit:
        yield Finding(
            "backlog",
            "trouble",
            f"Full: {detail} New webhooks are rejected.",
            "Check the workers and Postgres. Start more workers, or raise MAX_BACKLOG if Redis has memory to spare.",
        )
    elif waiting >= limit / 2:
        remedy = "Check the workers and Postgres. Senders that fill half of the backlog are rejected."
        yield Finding("backlog", "warning", detail, remedy)
    elif oldest is not None and oldest > STALLED_SECONDS and (status.get("postgres") or {}).get("state") == "ok":
        remedy = "Check the worker's log for what blocks this shard: another process may hold its lock."
        yield Finding("backlog", "warning", detail, remedy)
    else:
        yield Finding("backlog", "ok", detail)


def _search(postgres: dict[str, Any], _: Status) -> Iterator[Finding]:
    search = postgres.get("search")
    if not search:
        return
    found = format_search(search)
    if search["method"] == "words" and search.get("is_wanted", True):
        yield Finding("search", "warning", "By words alone.", search["reason"])
    elif search.get("is_loading"):
        yield Finding("search", "warning", f"{found[0].upper()}{found[1:]}.", "Wait some seconds.")
    else:
        yield Finding("search", "ok", f"{found[0].upper()}{found[1:].rstrip('.')}.")


def _dead_letters(postgres: dict[str, Any], _: Status) -> Iterator[Finding]:
    failed = postgres.get("dead_letters")
    if failed:
        yield Finding(
            "dead letters",
            "warning",
            f"{count(failed, 'command')} could not be applied.",
            "Run `session-cli dead-letters list` for the reasons. Fix the cause, then replay or discard them.",
        )
    elif failed is not None:
        yield Finding("dead letters", "ok", "None.")
    if parked := postgres.get("parked_events"):
        yield Finding(
            "parked events",
            "warning",
            f"{count(parked, 'event')} arrived while their sessions rejected changes.",
            "Run `session-cli dead-letters list --parked`. Resume the session, then replay or discard them.",
        )
