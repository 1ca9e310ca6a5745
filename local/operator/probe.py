"""Probes Postgres and Redis directly, without a relay, and checks a stack's data folder."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from api.database import Database
from api.operations.status_probe import observe
from local.operator.server_discovery import Servers
from models.settings import Settings
from relay.redis_client import open_redis

NOWHERE = {"database_url": "postgresql://127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}
"""Placeholders for unknown servers."""
LEFT_SECONDS = 86_400
"""The age from which a temporary file is left over; running processes have younger ones."""


def observe_servers(servers: Servers, settings: Settings) -> dict[str, Any]:
    """Report the servers' status as /v1/status does, omitting the parts of servers with unknown URLs."""
    observed = asyncio.run(_observe(servers, settings))
    if not servers.database_url:
        del observed["postgres"]
    if not servers.redis_url:
        del observed["redis"], observed["inbox"], observed["workers"]
    return observed


def free_share(folder: Path) -> tuple[int, float] | None:
    """Return the free bytes of the folder's disk, and their share of it; None for a missing folder."""
    if not folder.is_dir():
        return None
    usage = shutil.disk_usage(folder)
    return usage.free, usage.free / usage.total


def leftovers(data_dir: Path) -> list[Path]:
    """Find files that killed commands left in a data folder: temporary folders and drafts of the JSON store, and
    incomplete Postgres data."""
    patterns = ("json-store/.passing-*", "json-store/sessions/*.tmp", "postgres/data.new", ".stack.json.*")
    before = time.time() - LEFT_SECONDS
    found = [path for pattern in patterns for path in data_dir.glob(pattern)]
    return sorted(path for path in found if path.lstat().st_mtime < before)


async def _observe(servers: Servers, settings: Settings) -> dict[str, Any]:
    database_url = servers.database_url or NOWHERE["database_url"]
    database = Database(msgspec.structs.replace(settings, database_url=database_url))
    redis = open_redis(servers.redis_url or NOWHERE["redis_url"], connections=1)
    try:
        return await observe(redis, database, max_backlog=settings.max_backlog)
    finally:
        database.close()
        await redis.aclose()
