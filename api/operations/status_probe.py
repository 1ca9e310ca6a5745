"""Collects anonymous metrics of Redis, Postgres, the inbox and the workers, each with a timeout."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from redis.asyncio import Redis

from api.database import RELAY, Database
from models.errors import Unavailable
from models.queue.inbox import SHARDS, inbox_key
from models.queue.job_queue import SWEEPER_KEY, WORKERS_KEY
from models.tables import SCHEMA_REVISION
from relay.limits.persistence_check import NEEDED, check_persistence
from relay.redis_client import REDIS_ERRORS
from sessions.postgres.operations.health import check_health

PROBE_SECONDS = 2.0
"""Time limit per server. The caller wants to know whether it responds, not to wait until it does."""
SHARDS_SCRIPT = """
local clock = redis.call('TIME')
local now, found = clock[1] * 1000 + math.floor(clock[2] / 1000), {}
for i, key in ipairs(KEYS) do
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  local age = first and math.max(0, now - tonumber(string.match(first[1], '^%d+'))) or -1
  found[i] = {redis.call('XLEN', key), age}
end
return found
"""
"""Returns each stream's length and the age of its first entry in milliseconds, without transferring the entry."""

Part = dict[str, Any]


async def observe(redis: Redis, database: Database, *, max_backlog: int) -> Part:
    """Collect `redis`, `inbox`, `workers` and `postgres`. Parts that only an unavailable server knows are None."""
    from_redis, postgres = await asyncio.gather(probe_redis(redis, max_backlog), probe_postgres(database))
    return {**from_redis, "postgres": postgres}


async def probe_redis(redis: Redis, max_backlog: int) -> Part:
    """Collect `redis`, `inbox` and `workers`, as `observe` does."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await _read_redis(redis, max_backlog)
    except (*REDIS_ERRORS, TimeoutError):
        return {"redis": {"state": "unavailable"}, "inbox": None, "workers": None}


async def _read_redis(redis: Redis, max_backlog: int) -> Part:
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.info()
        pipeline.config_get(*NEEDED)
        pipeline.eval(SHARDS_SCRIPT, SHARDS, *map(inbox_key, range(SHARDS)))
        pipeline.smembers(WORKERS_KEY)
        pipeline.exists(SWEEPER_KEY)
        info, settings, shards, names, has_sweeper = await pipeline.execute(raise_on_error=False)
    # A server may deny access to its settings alone.
    if failure := next((answer for answer in (info, shards, names) if isinstance(answer, Exception)), None):
        raise failure
    weakness = check_persistence(settings)
    limit, used = info.get("maxmemory", 0), info["used_memory"]
    return {
        "redis": {
            "state": "ok",
            "version": info.get("valkey_version") or info.get("redis_version"),
            "durable": weakness is None,
            "weakness": weakness,
            "memory_bytes": used,
            "memory_limit_bytes": limit or None,
            "memory_share": round(used / limit, 3) if limit else None,
        },
        "inbox": _describe_inbox(shards, max_backlog),
        "workers": {**await _count_workers(redis, names), "sweeper": bool(has_sweeper)},
    }


def _describe_inbox(shards: list[list[int]], max_backlog: int) -> Part:
    items = [
        {"shard": shard, "waiting": waiting, "oldest_seconds": None if age < 0 else age / 1000}
        for shard, (waiting, age) in enumerate(shards)
    ]
    ages = [age / 1000 for _, age in shards if age >= 0]
    return {
        "waiting": sum(waiting for waiting, _ in shards),
        "limit": max_backlog,
        "oldest_seconds": max(ages, default=None),
        "shards": items,
    }


async def _count_workers(redis: Redis, names: set[bytes]) -> dict[str, int]:
    """Count the workers that RQ lists: a killed one stays listed for some minutes."""
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hget(name, "state")
        states = await pipeline.execute() if names else []
    return {"alive": sum(state is not None for state in states), "busy": states.count(b"busy")}


async def probe_postgres(database: Database) -> Part:
    """Collect the metrics of Postgres."""
    try:
        health = await database.read(check_health, source=RELAY, seconds=PROBE_SECONDS)
    except Unavailable:
        return {"state": "unavailable", "needed_revision": SCHEMA_REVISION}
    return {
        "state": "ok",
        "version": health.version,
        "durable": health.weakness is None,
        "weakness": health.weakness,
        "revision": health.revision,
        "needed_revision": SCHEMA_REVISION,
        "dead_letters": health.dead_letters,
        "parked_events": health.parked_events,
        "search": msgspec.to_builtins(health.search),
    }
