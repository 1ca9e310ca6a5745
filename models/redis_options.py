"""Options of every Redis client of this product, in all processes."""

from __future__ import annotations

from typing import Any

from redis.maint_notifications import MaintNotificationsConfig

REDIS_OPTIONS: dict[str, Any] = {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
"""While redis-py waits for maintenance notifications, which only Redis' own cloud sends, its pools hand out connections
that the server has closed: after each restart some commands fail."""
