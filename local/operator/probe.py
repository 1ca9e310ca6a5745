"""How the servers of an operator are, seen without a relay between, and how the folder of a stack is."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

from api.database import Database
from api.operations.status_probe import observe
from local.operator.server_discovery import Servers
from models.settings import Settings
from relay.redis_client import open_redis

NOWHERE = {"database_url": "postgresql://127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}
"""Stands for a server of which nothing is known."""
LEFT_SECONDS = 86_400
"""What a process that still runs has begun is younger."""


def observe_servers(servers: Servers, settings: Settings) -> dict[str, Any]:
    """What /v1/status would tell of them; without the parts of a server whose address is not known."""
    observed = asyncio.run(_observe(servers, settings))
    if not servers.database_url:
        del observed["postgres"]
    if not servers.redis_url:
        del observed["redis"], observed["inbox"], observed["workers"]
    return observed


def free_share(folder: Path) -> tuple[int, float] | None:
    """How many bytes are free where the folder is, and what part of all; None if there is no such folder."""
    if not folder.is_dir():
        return None
    usage = shutil.disk_usage(folder)
    return usage.free, usage.free / usage.total


def leftovers(data_dir: Path) -> list[Path]:
    """What killed commands have left in a data folder: passing folders and drafts of the JSON store, unfinished data of
    Postgres."""
    patterns = ("json-store/.passing-*", "json-store/sessions/*.tmp", "postgres/data.new", ".stack.json.*")
    before = time.time() - LEFT_SECONDS
    found = [path for pattern in patterns for path in data_dir.glob(pattern)]
    return sorted(path for path in found if path.lstat().st_mtime < before)


async def _observe(servers: Servers, settings: Settings) -> dict[str, Any]:
    database = Database(
        Settings(database_url=servers.database_url or NOWHERE["database_url"]),
    )
    redis = open_redis(servers.redis_url or NOWHERE["redis_url"], connections=1)
    try:
        return await observe(redis, database, max_backlog=settings.max_backlog)
    finally:
        database.close()
        await redis.aclose()
