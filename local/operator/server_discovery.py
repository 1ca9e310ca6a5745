"""Finds the servers of an operator's command: those of the environment, or those of the local stack, which are started
for the duration of the command if the stack is not running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from local.data_dir import Lock, make_data_dir
from local.stack.running_stack import running_stack
from models.errors import SettingsError
from models.process.program import own_data_dir
from models.settings import read_settings

Origin = Literal["environment", "running", "stopped"]


class Servers(NamedTuple):
    """The URLs of Postgres and Redis, and their origin: the environment, or a running or stopped stack."""

    database_url: str
    redis_url: str
    origin: Origin

    def __repr__(self) -> str:
        return f"Servers({self.origin!r})"


def known_servers(environment: Mapping[str, str]) -> Servers:
    """Return the servers of the environment, completed by those of the stack that runs on DATA_DIR. Unknown URLs are
    empty."""
    settings = read_settings(environment)
    description = running_stack(Path(settings.data_dir)) or {}
    database_url = settings.database_url or str(description.get("database_url", ""))
    redis_url = settings.redis_url or str(description.get("redis_url", ""))
    return Servers(database_url, redis_url, "environment" if settings.database_url or not description else "running")


@contextmanager
def open_servers(environment: Mapping[str, str], *, needs_redis: bool) -> Iterator[Servers]:
    """Yield the servers. Those of a stopped stack run for the duration of the block, under the stack's lock. Raises
    SettingsError if they are not configured, and StartError."""
    servers = known_servers(environment)
    if servers.database_url:
        if needs_redis and not servers.redis_url:
            raise SettingsError("REDIS_URL is not set.", hint="Set it to the Redis of this relay.")
        yield servers
        return
    data_dir = Path(read_settings(environment).data_dir)
    if not (data_dir / "postgres").exists():
        raise SettingsError(
            f"No database was found: DATABASE_URL is not set, and {data_dir} contains no stack.",
            hint="Set DATABASE_URL to postgresql://user@host/database, or DATA_DIR.",
        )
    if not environment.get("DATA_DIR", "").strip() and data_dir.resolve() != own_data_dir(environment):
        raise SettingsError(
            f"The Postgres in {data_dir.resolve()} was not started, because its settings can run programs.",
            hint=f"If you trust it, set DATA_DIR={data_dir}",
        )
    from local.servers.embedded import start_postgres, start_valkey

    folder = make_data_dir(data_dir)
    with ExitStack() as ends:
        ends.callback(Lock(folder / "stack.lock", subject=f"The data folder {folder}").release)
        postgres = start_postgres(folder)
        ends.callback(postgres.stop)
        redis_url = servers.redis_url
        if needs_redis and not redis_url:
            valkey = start_valkey(folder)
            ends.callback(valkey.stop)
            redis_url = valkey.url
        yield Servers(postgres.url, redis_url, "stopped")
