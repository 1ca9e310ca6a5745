"""Prepares embedded Valkey: its folders, and the command to run it durably."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local.data_dir import Lock, make_private, make_socket_folder
from local.servers.binaries import valkey_binary
from local.servers.orphans import end_orphans, mark
from local.servers.service import Say, Service, log_file, silent
from models.process.supervision import Child
from models.queue.redis_options import REDIS_OPTIONS

ROLE = "valkey"
TITLE = "Valkey"
SOCKET_NAME = "valkey.sock"
SETTINGS = {
    # Webhooks are acknowledged once they are on disk, and rejected when memory is full; nothing is evicted.
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "512mb",
    "maxmemory-policy": "noeviction",
    "save": "",
    "port": "0",
    "unixsocketperm": "700",
    # Keeps the environment readable, which contains the stack's mark.
    "set-proc-title": "no",
    "daemonize": "no",
}


def prepare_valkey(data_dir: Path, *, settings: Mapping[str, str] | None = None, say: Say = silent) -> Service:
    """Prepare the start: lock, orphans, folders. `settings` are server settings. Raises FolderError."""
    home = make_private(data_dir / "valkey")
    lock = Lock(data_dir / "valkey.lock", subject=f"The Valkey data folder {home}")
    try:
        if ended := end_orphans(data_dir, ROLE, home=home):
            say(f"Stopped the Valkey of a killed stack: {ended[0]}.")
        sockets = make_socket_folder(home, SOCKET_NAME)
        binary = valkey_binary()
    except BaseException:
        lock.release()
        raise
    log = log_file(data_dir, "valkey")
    own = {"unixsocket": str(sockets / SOCKET_NAME), "dir": str(home), "logfile": str(log)}
    all_settings = SETTINGS | dict(settings or {}) | own
    options = [part for name, value in all_settings.items() for part in (f"--{name}", value)]
    url = f"unix://{sockets / SOCKET_NAME}"
    return Service(
        title=TITLE,
        child=Child(
            name="valkey",
            command=(str(binary), *options),
            environment={"PATH": os.environ.get("PATH", os.defpath), **mark(data_dir, ROLE)},
            folder=home,
            log=log,
            lifeline=False,
        ),
        url=url,
        answers=lambda: _answers(url),
        role=ROLE,
        home=home,
        sockets=sockets,
        lock=lock,
    )


def _answers(url: str) -> bool:
    client = redis.Redis.from_url(url, **REDIS_OPTIONS, socket_timeout=2, retry=Retry(NoBackoff(), 0))
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
