"""Creates backends: a relay over HTTP, Postgres, or JSON files. Each is imported on use, to keep startup fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.http.client import Client
    from sessions.backend import Backend

BACKENDS = ("http", "postgres", "json")
DEFAULT = "http"
PROFILE_VARIABLE = "RELAY_PROFILE"
"""Names the stored login to use; `--profile` sets it."""


def connect_client(environment: Mapping[str, str], *, on_retry: Callable[[str], None]) -> Client:
    """Create a client for the configured relay. Raises SettingsError if none is configured."""
    from agent.http.client import Client
    from agent.http.relay_url import plain_http_hosts
    from cli.configuration import find_login

    login = find_login(environment)
    return Client(login.url, login.key, plain_hosts=plain_http_hosts(environment), on_retry=on_retry)


def connect_store(name: str, environment: Mapping[str, str], *, data_dir: str | None) -> Backend:
    """Open a store directly. Raises SettingsError if it is not configured."""
    from models.errors import SettingsError
    from models.settings import read_settings

    settings = read_settings({**environment, **({"DATA_DIR": data_dir} if data_dir else {})})
    if name == "json":
        from sessions.files.backend import FilesBackend

        return FilesBackend(settings)
    if not settings.database_url:
        raise SettingsError("DATABASE_URL is not set.", hint="Set it to postgresql://user@host/database.")
    from sessions.postgres.backend import PostgresBackend

    return PostgresBackend(settings)
