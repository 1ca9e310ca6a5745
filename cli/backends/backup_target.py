"""A store as something to back up and to restore: a database with its Redis, or the folder of the JSON store.

How it is done is `local`'s and `sessions.files.archive`'s; here it is made the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cli.context import CliContext
from cli.output.terminal import Advance
from local.operator.backups import count_tables, held_by, make_backup, read_backup
from local.operator.postgres_tools import TargetDatabase, tools_for
from local.operator.restore import restore, strangers_in, users_of
from local.operator.server_discovery import Servers, open_servers
from models.atomic_files import PRIVATE, replacing
from models.errors import Conflict
from models.settings import read_settings
from sessions.documents.store_summary import StoreSummary
from sessions.files.archive import Archive


class BackupTarget(Protocol):
    """One store."""

    title: str

    def count(self) -> int:
        """How many steps a backup takes."""

    def held(self) -> StoreSummary:
        """What is in it now."""

    def back_up(self, path: Path, *, advance: Advance) -> StoreSummary:
        """Write a backup and verify it; what is in it."""

    def look_into(self, path: Path) -> tuple[StoreSummary, int]:
        """What is in a backup, which is read to its end for it, and how many steps restoring it takes."""

    def require_unused(self) -> None:
        """Raise Conflict if somebody works on the store, or something in it is not ours."""

    def restore(self, path: Path, *, advance: Advance) -> None:
        """Put a backup in the place of all that there is."""


@contextmanager
def open_backup_target(tool: CliContext, *, restores: bool = False) -> Iterator[BackupTarget]:
    """The store that is meant, within the block. Raises SettingsError if it is not known where it is."""
    if tool.backend_choice == "json":
        yield FilesBackupTarget(Archive(Path(read_settings(tool.surroundings).data_dir)))
        return
    with open_servers(tool.surroundings, needs_redis=restores) as servers:
        yield PostgresBackupTarget(servers)


class PostgresBackupTarget:
    """A database, with the Redis that is before it."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._database = TargetDatabase(servers.database_url)
        self.title = f"the database {self._database.name} at {self._database.host}"

    def count(self) -> int:
        """See Keeper."""
        return count_tables(self._database)

    def held(self) -> StoreSummary:
        """See Keeper."""
        with self._database.connect("cli") as connection:
            return held_by(connection)

    def back_up(self, path: Path, *, advance: Advance) -> StoreSummary:
        """See Keeper."""
        return make_backup(self._database, path, advance=advance).held

    def look_into(self, path: Path) -> tuple[StoreSummary, int]:
        """See Keeper."""
        with self._database.connect("cli") as connection:
            backup = read_backup(path, tools_for(connection.server_version, reads=path))
        return backup.held, backup.tables

    def require_unused(self) -> None:
        """See Keeper."""
        if self._servers.origin == "running":
            raise Conflict(
                "The stack on this machine is running.",
                hint="Stop it first (Ctrl-C where `make up` runs); what this command needs of it is started by itself.",
            )
        with self._database.connect("cli") as connection:
            users, strangers = users_of(connection), strangers_in(connection)
        if users:
            raise Conflict(
                f"The database is in use by {', '.join(dict.fromkeys(users))}.",
                hint="Stop the workers and the app first; a relay that runs by itself (python -m relay) may go on.",
            )
        if strangers:
            raise Conflict(
                f"These tables are not of this version of session-relay, and would be gone: {', '.join(strangers)}.",
                hint="With --force they go, too.",
            )

    def restore(self, path: Path, *, advance: Advance) -> None:
        """See Keeper."""
        with self._database.connect("cli") as connection:
            tools = tools_for(connection.server_version, reads=path)
        restore(self._database, self._servers.redis_url, path, tools=tools, advance=advance)


class FilesBackupTarget:
    """The folder of the JSON store."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.title = f"the JSON store in {archive.place}"

    def count(self) -> int:
        """See Keeper."""
        return self._archive.count()

    def held(self) -> StoreSummary:
        """See Keeper."""
        return self._archive.held()

    def back_up(self, path: Path, *, advance: Advance) -> StoreSummary:
        """See Keeper."""
        with replacing(path, mode=PRIVATE) as draft:
            self._archive.save(draft, advance=advance)
            draft.flush()
            return self._archive.check(Path(draft.name))[0]

    def look_into(self, path: Path) -> tuple[StoreSummary, int]:
        """See Keeper."""
        return self._archive.check(path)

    def require_unused(self) -> None:
        """See Keeper. Who writes is kept out by the store's locks."""

    def restore(self, path: Path, *, advance: Advance) -> None:
        """See Keeper."""
        self._archive.replace(path, advance=advance)
