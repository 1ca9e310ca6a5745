"""One interface for backing up and restoring either store, over `local.operator` and `sessions.files.archive`."""

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
    """A store that can be backed up and restored."""

    title: str

    def count(self) -> int:
        """The number of steps of a backup, for progress."""

    def held(self) -> StoreSummary:
        """Summarize the store's current contents."""

    def back_up(self, path: Path, *, advance: Advance) -> StoreSummary:
        """Write a backup and verify it. Returns a summary of its contents."""

    def inspect(self, path: Path) -> tuple[StoreSummary, int]:
        """Verify a backup by reading all of it. Returns a summary, and the number of steps of a restore."""

    def require_unused(self) -> None:
        """Raise Conflict if the store is in use or contains foreign tables."""

    def restore(self, path: Path, *, advance: Advance) -> None:
        """Replace everything in the store with a backup."""


@contextmanager
def open_backup_target(tool: CliContext, *, restores: bool = False) -> Iterator[BackupTarget]:
    """Open the configured store for a `with` block. Raises SettingsError if it is not configured."""
    if tool.backend_choice == "json":
        yield FilesBackupTarget(Archive(Path(read_settings(tool.surroundings).data_dir)))
        return
    with open_servers(tool.surroundings, needs_redis=restores) as servers:
        yield PostgresBackupTarget(servers)


class PostgresBackupTarget:
    """A database and its Redis."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._database = TargetDatabase(servers.database_url)
        self.title = f"the database {self._database.name} at {self._database.host}"

    def count(self) -> int:
        """See BackupTarget."""
        return count_tables(self._database)

    def held(self) -> StoreSummary:
        """See BackupTarget."""
        with self._database.connect("cli") as connection:
            return held_by(connection)

    def back_up(self, path: Path, *, advance: Advance) -> StoreSummary:
        """See BackupTarget."""
        return make_backup(self._database, path, advance=advance).held

    def inspect(self, path: Path) -> tuple[StoreSummary, int]:
        """See BackupTarget."""
        with self._database.connect("cli") as connection:
            backup = read_backup(path, tools_for(connection.server_version, reads=path))
        return backup.held, backup.tables

    def require_unused(self) -> None:
        """See BackupTarget."""
        if self._servers.origin == "running":
            raise Conflict(
                "The local stack is running.",
                hint="Stop it first with Ctrl-C in `make up`; this command starts the servers that it needs.",
            )
        with self._database.connect("cli") as connection:
            users, strangers = users_of(connection), strangers_in(connection)
        if users:
            raise Conflict(
                f"The database is in use by {', '.join(dict.fromkeys(users))}.",
                hint="Stop the app and the workers first. A relay-only process (python -m relay) may keep running.",
            )
        if strangers:
            raise Conflict(
                f"Restoring would drop tables that session-relay does not know: {', '.join(strangers)}.",
                hint="Pass --force to drop them.",
            )

    def restore(self, path: Path, *, advance: Advance) -> None:
        """See BackupTarget."""
        with self._database.connect("cli") as connection:
            tools = tools_for(connection.server_version, reads=path)
        restore(self._database, self._servers.redis_url, path, tools=tools, advance=advance)


class FilesBackupTarget:
    """The data directory of the JSON store."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.title = f"the JSON store in {archive.place}"

    def count(self) -> int:
        """See BackupTarget."""
        return self._archive.count()

    def held(self) -> StoreSummary:
        """See BackupTarget."""
        return self._archive.held()

    def back_up(self, path: Path, *, advance: Advance) -> StoreSummary:
        """See BackupTarget."""
        with replacing(path, mode=PRIVATE) as draft:
            self._archive.save(draft, advance=advance)
            draft.flush()
            return self._archive.check(Path(draft.name))[0]

    def inspect(self, path: Path) -> tuple[StoreSummary, int]:
        """See BackupTarget."""
        return self._archive.check(path)

    def require_unused(self) -> None:
        """See BackupTarget. The store's locks exclude writers."""

    def restore(self, path: Path, *, advance: Advance) -> None:
        """See BackupTarget."""
        self._archive.replace(path, advance=advance)
