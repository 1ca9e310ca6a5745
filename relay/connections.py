"""Connections to Redis, as this process uses them: without silent retries, with time limits."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.errors import SettingsError

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 5.0
"""A server that syncs each write to a busy disk may take long; beyond this a result counts as unknown."""

RedisTrouble = (RedisError, OSError)
"""What a command on these connections raises when Redis is away or refuses."""


def open_redis(url: str, *, connections: int) -> Redis:
    """A client with at most so many connections, for which callers queue. Connects when it is first used.

    It never repeats a command by itself: a push that was run twice would find its own marks. Raises SettingsError.
    """
    if not url:
        raise SettingsError("REDIS_URL is not set: expected redis://:password@host:port/0.")
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=ANSWER_TIMEOUT_SECONDS,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=ANSWER_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise SettingsError("REDIS_URL is not valid: expected redis://:password@host:port/0.") from error
    return Redis.from_pool(pool)
