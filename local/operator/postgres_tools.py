"""Postgres' own tools (pg_dump, pg_restore, psql): which of those on this machine fit a server, and how they reach it.

A password never stands in a command line, where everybody on the machine could read it.
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
INVALID_URL = "DATABASE_URL is not valid: expected postgresql://user:password@host:port/database."
CONNECT_SECONDS = 5
SESSION_OPTIONS = "-c statement_timeout=30s -c timezone=UTC"
POOLER_REFUSAL = "unsupported startup parameter"
"""What pgbouncer says to options; an operator's few statements do without them."""
TAIL_BYTES = 4_096
SYSTEM_FOLDERS = "/usr/lib/postgresql/*/bin"
"""Where Debian keeps each version; its /usr/bin has a wrapper that chooses one by rules of its own."""
Connection = Any
"""psycopg2's, whose types are not worth their length here."""


class ToolError(RelayError):
    """A tool of Postgres is missing, or has failed."""

    code = "postgres_tool"


class TargetDatabase:
    """One database, as the tools and this program reach it."""

    def __init__(self, database_url: str) -> None:
        """Raises SettingsError for an address that is none."""
        url = "postgresql://" + sqlalchemy_url(database_url).partition("://")[2]
        try:
            parts = parse_dsn(url)
        except psycopg2.ProgrammingError as error:
            raise SettingsError(INVALID_URL) from error
        self.url = url
        password = parts.pop("password", None)
        self.dsn: str = make_dsn(**parts)
        """How to reach it, without the password."""
        self.name: str = parts.get("dbname") or parts.get("user") or "postgres"
        self.host: str = parts.get("host") or parts.get("hostaddr") or "this machine"
        self._secret = {"PGPASSWORD": password} if password else {}

    def __repr__(self) -> str:
        return f"Database({self.name!r} at {self.host!r})"

    def environment(self, application: str) -> dict[str, str]:
        """For a tool that connects."""
        return {
            **os.environ,
            **self._secret,
            "PGAPPNAME": f"session-relay {application}",
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "LC_ALL": "C",
        }

    def connect(self, application: str) -> closing[Connection]:
        """A connection for some statements, each of which commits. Raises Unavailable."""
        connection = self.open(application)
        connection.autocommit = True
        return closing(connection)

    def open(self, application: str) -> Connection:
        """A connection that the caller closes. Raises Unavailable."""
        try:
            return self._connect(application)
        except psycopg2.OperationalError as error:
            raise Unavailable(
                f"Postgres does not answer ({self.name} at {self.host}): {str(error).strip()}",
                hint="Start it, or check DATABASE_URL.",
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
    """The tools of one version, in one folder."""

    folder: Path
    major: int

    def path(self, name: str) -> str:
        """One of them."""
        return str(self.folder / name)


def tools_for(
    server_version: int, *, reads: Path | None = None, among: Callable[[], Iterator[Path]] | None = None
) -> Tools:
    """The oldest tools that are not older than the server, whose version is as libpq gives it (180004), and that know
    the form of a backup, if one is to be read. Raises ToolError that says what there is, and what is needed."""
    needed = server_version // 10_000
    found = [
        Tools(folder, major)
        for folder in dict.fromkeys((among or _folders)())
        if all((folder / name).is_file() for name in NAMES) and (major := _major(folder / NAMES[0]))
    ]
    fitting = sorted((tools for tools in found if tools.major >= needed), key=lambda tools: tools.major)
    if not fitting:
        there = ", ".join(f"{tools.major} in {tools.folder}" for tools in found) or "none"
        raise ToolError(
            f"The server is Postgres {needed}; that needs pg_dump, pg_restore and psql of at least this version. There "
            f"are: {there}.",
            hint=f"Install the client programs of Postgres {needed} (postgresql-client-{needed} on Debian).",
        )
    # What none of them can read is told of when it is read.
    return next((tools for tools in fitting if reads is None or _lists(tools, reads)), fitting[-1])


def reap(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    """Wait for the end of a tool. Raises ToolError with the end of what it complained of."""
    if process.wait() == 0:
        return
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - TAIL_BYTES))
    told = errors.read().decode(errors="replace").strip()
    raise ToolError(f"{Path(str(process.args[0])).name} has failed.", hint=told or None)  # type: ignore[index]


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
        return  # Servers need no wheel.


def _major(program: Path) -> int:
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return 0
    found = re.search(r"\d+", told)
    return int(found[0]) if found else 0
