"""How every process of this product reaches Redis: the address, and options of all clients."""

from __future__ import annotations

from typing import Any

from redis.connection import parse_url
from redis.maint_notifications import MaintNotificationsConfig

from models.errors import SettingsError

EXPECTED_URL = "expected redis://:password@host:port/0"

REDIS_OPTIONS: dict[str, Any] = {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
"""While redis-py waits for maintenance notifications, which only Redis' own cloud sends, its pools hand out connections
that the server has closed: after each restart some commands fail."""


def check_redis_url(redis_url: str) -> None:
    """Raise SettingsError for a REDIS_URL that is missing or that redis-py does not read."""
    if not redis_url:
        raise SettingsError(f"REDIS_URL is not set: {EXPECTED_URL}.")
    try:
        parse_url(redis_url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise SettingsError(f"REDIS_URL is not valid: {EXPECTED_URL}.") from error
