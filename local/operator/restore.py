"""Restores a backup: deletes the delivery marks in Redis, then replaces the database's contents in one transaction.

A kill at any moment leaves the database either unchanged or fully restored. Lost marks do no harm, because Postgres
recognizes repeated deliveries, too. Revoked keys and the inboxes stay in Redis.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from local.operator.backups import COPY, Advance, script_of
from local.operator.migrations import read_revision, upgrade
from local.operator.postgres_tools import Connection, TargetDatabase, ToolError, Tools, reap
from models.errors import Unavailable
from models.queue.inbox import dedup_key, outcome_key
from models.queue.redis_options import REDIS_OPTIONS
from models.tables import METADATA, SCHEMA_REVISION
from sessions.postgres.embeddings.vector_table import TABLE as VECTORS

FORGOTTEN = (dedup_key("*", "*"), outcome_key("*", "*", "*"))
"""Key patterns of deduplication marks and kept responses."""
UNLINKED_AT_ONCE = 500
REDIS_SECONDS = 5.0
FIRST_VERSION_WITH_TRANSACTION_TIMEOUT = 170_000
TRANSACTION_TIMEOUT = b"SET transaction_timeout = 0;\n"
"""Newer tools emit this even for servers that do not know it."""

OF_VECTORS = (b"CREATE EXTENSION IF NOT EXISTS vector ", b"COMMENT ON EXTENSION vector ")
"""The worker makes the extension where it is installed; a backup has no vectors."""

BEGINNING = b"""\
BEGIN;
SET LOCAL lock_timeout = '10s';
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
"""
READY = b"everything is in\n"
END = b"SELECT '%s';\n" % READY.rstrip()


def restore(database: TargetDatabase, redis_url: str, path: Path, *, tools: Tools, advance: Advance) -> None:
    """Replace everything in the database with a backup, and migrate it to this version. Raises Unavailable or
    ToolError, which leave the database unchanged; MigrationFailed, after which only the migration is left to do."""
    forget_deliveries(redis_url)
    _replace(database, path, tools=tools, advance=advance)
    # A worker that was still running may have marked deliveries that the backup does not contain.
    forget_deliveries(redis_url)
    if read_revision(database) != SCHEMA_REVISION:
        upgrade(database)


def forget_deliveries(redis_url: str) -> int:
    """Delete the deduplication marks and kept responses in Redis. Returns the number of keys. Raises Unavailable."""
    deleted = 0
    try:
        retry = Retry(NoBackoff(), 0)
        with Redis.from_url(redis_url, **REDIS_OPTIONS, socket_timeout=REDIS_SECONDS, retry=retry) as redis:
            for pattern in FORGOTTEN:
                found = redis.scan_iter(match=pattern, count=UNLINKED_AT_ONCE)
                while keys := list(islice(found, UNLINKED_AT_ONCE)):
                    redis.unlink(*keys)
                    deleted += len(keys)
    except (RedisError, OSError) as error:
        raise Unavailable(
            "Redis is not responding; its delivery marks have to be deleted before a restore.", hint=str(error)
        ) from error
    return deleted


def users_of(connection: Connection) -> list[str]:
    """List the connected processes of session-relay other than session-cli, such as `session-relay worker`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND application_name LIKE 'session-relay %'"
            " AND application_name <> 'session-relay cli' ORDER BY 1"
        )
        return [name for (name,) in cursor]


def strangers_in(connection: Connection) -> list[str]:
    """List tables that this version does not know and a restore would drop: another program's, or a newer version's."""
    ours = [*METADATA.tables, "alembic_version", VECTORS]
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL (%s)", (ours,))
        return sorted(name for (name,) in cursor)


def _replace(database: TargetDatabase, path: Path, *, tools: Tools, advance: Advance) -> None:
    """Empty and fill the database in one transaction, which is committed only after all of the backup was read."""
    with database.connect("cli") as connection:
        is_new = connection.server_version >= FIRST_VERSION_WITH_TRANSACTION_TIMEOUT
    with _psql(database, tools) as (script, answers):
        script.write(BEGINNING)
        for line in script_of(path, tools):
            if (not is_new and line == TRANSACTION_TIMEOUT) or line.startswith(OF_VECTORS):
                continue
            script.write(line)
            if line.startswith(b"COPY ") and COPY.fullmatch(line):
                advance()
        script.write(END)
        script.flush()
        # COMMIT is sent only after psql has confirmed everything, so that a kill before that rolls back.
        is_complete = READY in answers
        if is_complete:
            script.write(b"COMMIT;\n")
    if not is_complete:
        raise ToolError("psql exited before the restore was complete. Nothing was changed.")


@contextlib.contextmanager
def _psql(database: TargetDatabase, tools: Tools) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Run psql, stopping at the first error. Yields its input and output. Uncommitted changes are rolled back when it
    exits."""
    command = [tools.path("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    command.append(f"--dbname={database.dsn}")
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = database.environment("restore")
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, env=environment, stderr=errors, **options) as process,  # noqa: S603
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # reap() reports psql's own error.
                yield process.stdin, process.stdout
                process.stdin.close()
            reap(process, errors)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
