"""The Redis client of this process, without silent retries and with timeouts."""

from __future__ import annotations

from typing import NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from models.errors import SettingsError
from models.queue.redis_options import REDIS_OPTIONS

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 5.0
"""A server that syncs each write to a busy disk may take long; after that a result counts as unknown."""

CAUSE_LENGTH = 200
"""Characters of an error's text in a log line."""

REDIS_ERRORS = (RedisError, OSError)
"""Raised by commands while Redis is unavailable or refuses them."""


def open_redis(url: str, *, connections: int) -> Redis:
    """Returns a client with at most `connections` connections, for which callers queue. Connects on first use.

    It never retries a command: a push that ran twice would find its own deduplication keys. Raises SettingsError.
    """
    if not url:
        raise SettingsError("REDIS_URL is not set: expected redis://:password@host:port/0.")
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            **REDIS_OPTIONS,
            max_connections=connections,
            timeout=ANSWER_TIMEOUT_SECONDS,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=ANSWER_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise SettingsError("REDIS_URL is not valid: expected redis://:password@host:port/0.") from error
    return Redis.from_pool(pool)


class Diagnosis(NamedTuple):
    """The trouble with Redis, in words for senders and for operators."""

    message: str
    """One clause for senders: no addresses, no names."""
    advice: str
    cause: str
    """The library's own words."""


def diagnose(error: BaseException) -> Diagnosis:
    """Explains why a command failed, with advice for the cause."""
    while isinstance(under := error.__cause__ or error.__context__, RedisError):
        error = under  # A rejected password is raised as a lost connection.
    message, advice = _explain(error)
    text = " ".join(str(error).split())[:CAUSE_LENGTH]
    return Diagnosis(message, advice, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _explain(error: BaseException) -> tuple[str, str]:
    if isinstance(error, AuthenticationError):
        return "Redis rejects this relay's password", "Correct the user and the password in REDIS_URL."
    if isinstance(error, NoPermissionError):
        return (
            "Redis denies this relay commands that it needs",
            "Allow the user in REDIS_URL all commands on the keys and channels sr:* and rq:*, and INFO.",
        )
    if isinstance(error, ReadOnlyError):
        return "Redis is a read-only replica", "Name the primary in REDIS_URL."
    if isinstance(error, OutOfMemoryError):
        return "The inbox has little memory left", "Give Redis more memory (maxmemory)."
    if isinstance(error, BusyLoadingError):
        return "Redis is loading its data", "Wait until it has loaded."
    if isinstance(error, ResponseError):
        return "Redis refuses to store anything", "Fix the cause that it names; often its disk is full."
    return "The inbox does not answer at the moment", "Start Redis, or correct host and port in REDIS_URL."
