"""Connects to a database, and finds the client tools (pg_dump, pg_restore, psql) that fit its version.

Passwords are never put on a command line, where all users of the machine could read them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from local.servers.binaries import postgres_binaries
from local.servers.service import StartError, silent
from models.errors import RelayError, SettingsError, Unavailable
from models.settings import sqlalchemy_url

NAMES = ("pg_dump", "pg_restore", "psql")
INVALID_URL = "Invalid DATABASE_URL: expected postgresql://user:password@host:port/database."
CONNECT_SECONDS = 5
SESSION_OPTIONS = "-c statement_timeout=30s -c timezone=UTC"
POOLER_REFUSAL = "unsupported startup parameter"
"""The error of pgbouncer for startup options, which an operator's few statements can do without."""
TAIL_BYTES = 4_096
SYSTEM_FOLDERS = "/usr/lib/postgresql/*/bin"
"""The folders in which Debian installs each version. Its wrapper in /usr/bin chooses a version by its own rules."""
Connection = Any
"""A psycopg2 connection; its type stubs are too long to be useful here."""


class ToolError(RelayError):
    """A Postgres tool is missing or failed."""

    code = "postgres_tool"


class TargetDatabase:
    """The connection settings of one database, for the tools and for psycopg2."""

    def __init__(self, database_url: str) -> None:
        """Raises SettingsError for an invalid URL."""
        url = "postgresql://" + sqlalchemy_url(database_url).partition("://")[2]
        try:
            parts = parse_dsn(url)
        except psycopg2.ProgrammingError as error:
            raise SettingsError(INVALID_URL) from error
        self.url = url
        password = parts.pop("password", None)
        self.dsn: str = make_dsn(**parts)
        """The connection string without the password."""
        self.name: str = parts.get("dbname") or parts.get("user") or "postgres"
        self.host: str = parts.get("host") or parts.get("hostaddr") or "this machine"
        self._secret = {"PGPASSWORD": password} if password else {}

    def __repr__(self) -> str:
        return f"Database({self.name!r} at {self.host!r})"

    def environment(self, application: str) -> dict[str, str]:
        """Build the environment for a tool that connects."""
        return {
            **os.environ,
            **self._secret,
            "PGAPPNAME": f"session-relay {application}",
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "LC_ALL": "C",
        }

    def connect(self, application: str) -> closing[Connection]:
        """Open an autocommit connection for a `with` block. Raises Unavailable."""
        connection = self.open(application)
        connection.autocommit = True
        return closing(connection)

    def open(self, application: str) -> Connection:
        """Open a connection that the caller closes. Raises Unavailable."""
        try:
            return self._connect(application)
        except psycopg2.OperationalError as error:
            raise Unavailable(
                f"Cannot connect to the database {self.name} at {self.host}: {str(error).strip()}",
                hint="Start Postgres, or correct DATABASE_URL.",
            ) from error

    def _connect(self, application: str) -> Connection:
        how: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "application_name": f"session-relay {application}"}
        try:
            return psycopg2.connect(self.url, **how, options=SESSION_OPTIONS)
        except psycopg2.OperationalError as error:
            if POOLER_REFUSAL not in str(error):
                raise
            return psycopg2.connect(self.url, **how)


class Tools(NamedTuple):
    """The client tools of one version."""

    folder: Path
    major: int

    def path(self, name: str) -> str:
        """Return the path of a tool."""
        return str(self.folder / name)


def tools_for(
    server_version: int, *, reads: Path | None = None, among: Callable[[], Iterator[Path]] | None = None
) -> Tools:
    """Find the oldest tools that are not older than the server (version as in libpq: 180004) and that can read the
    backup, if one is given. Raises ToolError that lists the required and the installed versions."""
    needed = server_version // 10_000
    found = [
        Tools(folder, major)
        for folder in dict.fromkeys((among or _folders)())
        if all((folder / name).is_file() for name in NAMES) and (major := _major(folder / NAMES[0]))
    ]
    fitting = sorted((tools for tools in found if tools.major >= needed), key=lambda tools: tools.major)
    if not fitting:
        installed = ", ".join(f"{tools.major} in {tools.folder}" for tools in found) or "none"
        raise ToolError(
            f"Postgres {needed} requires pg_dump, pg_restore and psql {needed} or newer. Installed: {installed}.",
            hint=f"Install the client programs of Postgres {needed} (postgresql-client-{needed} on Debian).",
        )
    # If no tools can list the backup, reading it will raise the error.
    return next((tools for tools in fitting if reads is None or _lists(tools, reads)), fitting[-1])


def reap(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    """Wait for a tool to exit. Raises ToolError with the end of its stderr if it failed."""
    if process.wait() == 0:
        return
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - TAIL_BYTES))
    complaint = errors.read().decode(errors="replace").strip()
    raise ToolError(f"{Path(str(process.args[0])).name} failed.", hint=complaint or None)  # type: ignore[index]


def _lists(tools: Tools, backup: Path) -> bool:
    command = [tools.path("pg_restore"), "--list", str(backup)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def _folders() -> Iterator[Path]:
    if on_path := shutil.which(NAMES[0]):
        yield Path(on_path).parent
    pattern = Path(SYSTEM_FOLDERS)
    yield from sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    try:
        yield postgres_binaries(None, say=silent)
    except StartError:
        return  # The wheel is optional with a server of one's own.


def _major(program: Path) -> int:
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return 0
    found = re.search(r"\d+", output)
    return int(found[0]) if found else 0
