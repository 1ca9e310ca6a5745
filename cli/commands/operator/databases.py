"""Operates the store directly: migrations, backup and restore, and a read-only database role."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.command_declaration import CommandGroup, command, yes_option
from cli.context import CliContext
from cli.output.humanize import ago, count
from cli.output.table_columns import Column, OutputSchema

if TYPE_CHECKING:
    from local.operator.migrations import SchemaReport
    from sessions.documents.store_summary import StoreSummary

SCHEMA = OutputSchema(
    (
        Column("database", "Database", "name"),
        Column("state", "State", "state"),
        Column("revision", "Revision"),
        Column("needed", "Needed"),
        Column("differences", "Differences", "text"),
    ),
    id_path="database",
)
BACKUP = OutputSchema(
    (
        Column("file", "File", "name"),
        Column("sessions", "Sessions", "number"),
        Column("latest_activity_at", "Latest", "time"),
        Column("size", "Bytes", "number"),
    ),
    id_path="file",
)
READER = OutputSchema(
    (
        Column("role", "Role", "name"),
        Column("database", "Database", "plain"),
        Column("url", "URL", "id"),
        Column("socket", "Socket", "plain"),
        Column("tables", "May read", "plain"),
    ),
    more=("remains",),
    id_path="role",
)
_SENTENCES = {
    "current": "The schema is up to date.",
    "behind": "The schema is out of date. Run `session-cli db upgrade`.",
    "empty": "The database has no tables. Run `session-cli db upgrade`.",
    "ahead": "The schema is newer than this program. Update session-relay.",
    "differs": "The schema has the expected revision, but its tables were changed by hand.",
}


@click.group("db", cls=CommandGroup)
def databases() -> None:
    """Migrate, check, back up and restore the store. These commands bypass the relay. They use the servers of
    DATABASE_URL and REDIS_URL, else those of the stack in DATA_DIR, running or not; with --backend json, the files in
    DATA_DIR."""


@command("upgrade", SCHEMA)
def upgrade(tool: CliContext) -> None:
    """Migrate the Postgres schema to this version. Safe to repeat."""
    from local.operator.migrations import compare, upgrade

    with _database(tool) as database:
        upgrade(database)
        report = compare(database)
    tool.terminal.done(f"Database {database.name} is at schema revision {report.revision}.")
    _show(tool, report)


@command("check", SCHEMA)
def check(tool: CliContext) -> int:
    """Check that the Postgres schema is up to date. Exits with 1 if not."""
    from local.operator.migrations import compare

    with _database(tool) as database:
        report = compare(database)
    if report.state == "current":
        tool.terminal.done(_SENTENCES["current"])
    else:
        tool.terminal.warn(_SENTENCES[report.state])
    _show(tool, report)
    return int(report.state != "current")


@command("backup", BACKUP)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def backup(tool: CliContext, file: Path) -> None:
    """Back up the store to FILE. The relay may keep running. Only you can read FILE; an existing one is replaced once
    the new backup is verified."""
    from cli.backends.backup_target import open_backup_target

    with open_backup_target(tool) as target, tool.terminal.progress("Backing up", target.count()) as advance:
        made = target.back_up(file, advance=advance)
    tool.terminal.done(f"Backed up {_describe(made)} to {file}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(_item(file, made), BACKUP)


@command("restore", BACKUP)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--force", is_flag=True, help="Restore even if the database is in use or has foreign tables.")
@yes_option()
def restore(tool: CliContext, file: Path, force: bool, yes: bool) -> None:
    """Replace everything in the store with a backup. FILE is verified first, then restored in one transaction."""
    from cli.backends.backup_target import open_backup_target

    with open_backup_target(tool, restores=True) as target:
        if not force:
            target.require_unused()
        new, steps = target.inspect(file)
        tool.terminal.confirm(
            f"Replace {_describe(target.held())} in {target.title} with {_describe(new)} from {file}?", yes=yes
        )
        if not force:
            target.require_unused()  # Again: the prompt may have waited for long.
        with tool.terminal.progress("Restoring", steps) as advance:
            target.restore(file, advance=advance)
    tool.terminal.done(f"Restored {_describe(new)} from {file}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(_item(file, new), BACKUP)


@command("reader", READER)
@click.option("--role", metavar="NAME", help="Name of the role.  [default: session_relay_reader]")
@click.option("--drop", is_flag=True, help="Drop the role instead.")
def reader(tool: CliContext, role: str | None, drop: bool) -> None:
    """Create a Postgres role that can only read sessions. Use it for programs such as an MCP server. The password is
    shown once; running this again sets a new one and updates the privileges."""
    import msgspec

    from local.operator.reader_role import ROLE, drop_reader, make_reader

    role = role or ROLE
    with _database(tool) as database:
        if drop:
            was_there = drop_reader(database, role=role)
            tool.terminal.done(f"Dropped role {role}." if was_there else f"Role {role} does not exist.")
            return
        made = make_reader(database, role=role)
    tool.terminal.item(msgspec.structs.asdict(made), READER)
    for sentence in made.remains:
        tool.terminal.warn(sentence)
    if made.socket:
        tool.terminal.warn(f"Users with access to {made.socket} may connect as any role without a password.")
    tool.terminal.note("Save the URL now: its password will not be shown again.")


def _database(tool: CliContext) -> Any:
    """Open the database for a `with` block."""
    from contextlib import contextmanager

    from local.operator.postgres_tools import TargetDatabase
    from local.operator.server_discovery import open_servers

    if tool.backend_choice == "json":
        raise click.UsageError("The JSON store has no schema. Use --backend postgres.")

    @contextmanager
    def opened() -> Any:
        with open_servers(tool.surroundings, needs_redis=False) as servers:
            yield TargetDatabase(servers.database_url)

    return opened()


def _show(tool: CliContext, report: SchemaReport) -> None:
    import msgspec

    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(msgspec.structs.asdict(report), SCHEMA)
    elif report.differences:
        tool.terminal.note(report.differences)


def _describe(held: StoreSummary) -> str:
    from datetime import UTC, datetime

    active_at = held.latest_activity_at
    latest = f" (last active {ago(active_at.isoformat(), now=datetime.now(UTC))})" if active_at else ""
    return f"{count(held.sessions, 'session')}{latest}"


def _item(file: Path, held: StoreSummary) -> dict[str, Any]:
    active_at = held.latest_activity_at
    return {
        "file": str(file),
        "sessions": held.sessions,
        "latest_activity_at": active_at.isoformat() if active_at else None,
        "size": file.stat().st_size,
    }


for member in (upgrade, check, backup, restore, reader):
    databases.add_command(member)
