"""Redis connection options shared by all processes."""

from __future__ import annotations

from typing import Any

from redis.connection import parse_url
from redis.maint_notifications import MaintNotificationsConfig

from models.errors import SettingsError

EXPECTED_URL = "expected redis://:password@host:port/0"

REDIS_OPTIONS: dict[str, Any] = {
    # Only Redis Cloud sends these. With them, redis-py's pools hand out connections that the server has closed, so that
    # some commands fail after each restart of Redis.
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    # Otherwise each new connection reads redis-py's version from its package, and sends it.
    "driver_info": None,
}


def check_redis_url(redis_url: str) -> None:
    """Raise SettingsError if REDIS_URL is missing or redis-py cannot parse it."""
    if not redis_url:
        raise SettingsError(f"REDIS_URL is not set: {EXPECTED_URL}.")
    try:
        parse_url(redis_url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise SettingsError(f"REDIS_URL is not valid: {EXPECTED_URL}.") from error
