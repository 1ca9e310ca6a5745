"""Probes Postgres and Redis directly, without a relay."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from api.database import Database
from api.operations.status_probe import observe
from local.operator.server_discovery import Servers
from models.settings import Settings
from relay.redis_client import open_redis

NOWHERE = {"database_url": "postgresql://127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}
"""Placeholders for unknown servers."""


def observe_servers(servers: Servers, settings: Settings) -> dict[str, Any]:
    """Report the servers' status as /v1/status does, omitting the parts of servers with unknown URLs."""
    observed = asyncio.run(_observe(servers, settings))
    if not servers.database_url:
        del observed["postgres"]
    if not servers.redis_url:
        del observed["redis"], observed["inbox"], observed["workers"]
    return observed


async def _observe(servers: Servers, settings: Settings) -> dict[str, Any]:
    database_url = servers.database_url or NOWHERE["database_url"]
    database = Database(msgspec.structs.replace(settings, database_url=database_url))
    redis = open_redis(servers.redis_url or NOWHERE["redis_url"], connections=1)
    try:
        return await observe(redis, database, max_backlog=settings.max_backlog)
    finally:
        database.close()
        await redis.aclose()
