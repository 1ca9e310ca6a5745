"""Which servers an operator's command works on: those of the environment, or those of a stack on this machine, which
are started for as long as they are needed when the stack does not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from local.data_dir import Lock, make_data_dir
from local.stack.running_stack import running_stack
from models.errors import SettingsError
from models.settings import read_settings

PROJECT = Path(__file__).resolve().parent.parent.parent
Origin = Literal["environment", "running", "stopped"]


class Servers(NamedTuple):
    """Where Postgres and Redis are, and whose they are: the environment's, or a stack's that runs or does not."""

    database_url: str
    redis_url: str
    origin: Origin

    def __repr__(self) -> str:
        return f"Servers({self.origin!r})"


def known_servers(environment: Mapping[str, str]) -> Servers:
    """The servers of the environment, and what it does not name of the stack that runs on DATA_DIR. An address is empty
    if neither knows it."""
    settings = read_settings(environment)
    description = running_stack(Path(settings.data_dir)) or {}
    database_url = settings.database_url or str(description.get("database_url", ""))
    redis_url = settings.redis_url or str(description.get("redis_url", ""))
    return Servers(database_url, redis_url, "environment" if settings.database_url or not description else "running")


@contextmanager
def open_servers(environment: Mapping[str, str], *, needs_redis: bool) -> Iterator[Servers]:
    """The servers, of which those of a stack that does not run are running within the block, while nobody else can
    start it. Raises SettingsError if it is not known where they are, and StartError."""
    servers = known_servers(environment)
    if servers.database_url:
        if needs_redis and not servers.redis_url:
            raise SettingsError("REDIS_URL is not set.", hint="Say where the Redis of these sessions is.")
        yield servers
        return
    data_dir = Path(read_settings(environment).data_dir)
    if not (data_dir / "postgres").exists():
        raise SettingsError(
            f"There is no database: DATABASE_URL is not set, and no stack keeps its data in {data_dir}.",
            hint="Say where Postgres is: postgresql://user@host/database.",
        )
    if not environment.get("DATA_DIR", "").strip() and data_dir.resolve() != PROJECT / ".data":
        raise SettingsError(
            f"{data_dir.resolve()} is not started unasked: the settings in it say what its Postgres runs.",
            hint=f"If it is yours, name it: DATA_DIR={data_dir}",
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
