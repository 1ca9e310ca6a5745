"""The store itself: its tables brought up to date, backups of all that is in it and how they come back, and a role that
may read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.command_declaration import command, yes_option
from cli.context import CliContext
from cli.output.humanize import ago, count
from cli.output.output_schemas import Column, OutputSchema

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
    "current": "The tables are those of this version.",
    "behind": "The tables are of an older version: run `session-cli db upgrade`.",
    "empty": "There are no tables yet: run `session-cli db upgrade`.",
    "ahead": "The tables are of a newer version than this program: update the program.",
    "differs": "The tables say that they are of this version, but somebody has changed them.",
}


@click.group("db")
def databases() -> None:
    """Look after the store itself. This goes past the relay, to the servers: those of DATABASE_URL and
    REDIS_URL, else those of the stack in DATA_DIR, whether it runs or not; or, with --backend json, to the
    files in DATA_DIR."""


@command("upgrade", SCHEMA)
def upgrade(tool: CliContext) -> None:
    """Bring the tables in Postgres to this version, by the migrations. May be repeated."""
    from local.operator.migrations import compare, upgrade

    with _database(tool) as database:
        upgrade(database)
        report = compare(database)
    tool.terminal.done(f"{database.name} is at schema {report.revision}.")
    _show(tool, report)


@command("check", SCHEMA)
def check(tool: CliContext) -> int:
    """Tell whether the tables in Postgres are those of this version. If not, the exit code is 1."""
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
    """Write all that is in the store into FILE, at any time. Only you can read it. It is read to its end
    before it counts; what was in FILE stays until then."""
    from cli.backends.backup_target import open_backup_target

    with open_backup_target(tool) as keeper, tool.terminal.progress("Backing up", keeper.count()) as advance:
        made = keeper.back_up(file, advance=advance)
    tool.terminal.done(f"Backed up {_told(made)}, into {file}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(_item(file, made), BACKUP)


@command("restore", BACKUP)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--force", is_flag=True, help="Also while the database is in use, or has tables of others.")
@yes_option()
def restore(tool: CliContext, file: Path, force: bool, yes: bool) -> None:
    """Put the backup in FILE in the place of all that is in the store. It is read to its end before anything
    changes; then all of it changes at once, or nothing."""
    from cli.backends.backup_target import open_backup_target

    with open_backup_target(tool, restores=True) as keeper:
        if not force:
            keeper.require_unused()
        new, steps = keeper.look_into(file)
        tool.terminal.confirm(
            f"Give up what is in {keeper.title}, {_told(keeper.held())}, for what is in {file}, {_told(new)}?", yes=yes
        )
        if not force:
            keeper.require_unused()  # Somebody may have taken long to answer.
        with tool.terminal.progress("Restoring", steps) as advance:
            keeper.restore(file, advance=advance)
    tool.terminal.done(f"Restored {_told(new)}, from {file}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(_item(file, new), BACKUP)


@command("reader", READER)
@click.option("--role", metavar="NAME", help="Another name than session_relay_reader.")
@click.option("--drop", is_flag=True, help="Remove the role instead.")
def reader(tool: CliContext, role: str | None, drop: bool) -> None:
    """Make a role in Postgres that may read the sessions and nothing else, for programs such as an MCP server. Its
    password is shown this once. Repeated, it gets a new one, and the rights of this version."""
    import msgspec

    from local.operator.reader_role import ROLE, drop_reader, make_reader

    role = role or ROLE
    with _database(tool) as database:
        if drop:
            was_there = drop_reader(database, role=role)
            tool.terminal.done(f"The role {role} is {'dropped' if was_there else 'not there'}.")
            return
        made = make_reader(database, role=role)
    tool.terminal.item(msgspec.structs.asdict(made), READER)
    for sentence in made.remains:
        tool.terminal.warn(sentence)
    if made.socket:
        tool.terminal.warn(f"Whoever can enter {made.socket} may need no password there, for any role.")
    tool.terminal.note("Keep the URL now: its password is not shown again.")


def _database(tool: CliContext) -> Any:
    """The database, within a block."""
    from contextlib import contextmanager

    from local.operator.postgres_tools import TargetDatabase
    from local.operator.server_discovery import open_servers

    if tool.backend_choice == "json":
        raise click.UsageError("The JSON store has no tables; it needs no migrations.")

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


def _told(held: StoreSummary) -> str:
    from datetime import UTC, datetime

    active_at = held.latest_activity_at
    latest = f", the latest active {ago(active_at.isoformat(), now=datetime.now(UTC))}" if active_at else ""
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
