"""Restoring a backup: first Redis forgets what it has seen, then one transaction empties the database and fills it.

Killed at any moment it has done nothing to the database, or all. What Redis has forgotten until then costs nothing:
Postgres recognizes repeats by itself. Keys that were revoked, and what waits in the inboxes, stay in Redis.
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
from local.operator.migrations import upgrade
from local.operator.postgres_tools import Connection, TargetDatabase, ToolError, Tools, reap
from models.errors import Unavailable
from models.queue.inbox import dedup_key, outcome_key
from models.queue.redis_options import REDIS_OPTIONS
from models.tables import Base

FORGOTTEN = (dedup_key("*", "*"), outcome_key("*", "*", "*"))
"""Patterns of the marks by which repeats are recognized, and of answers that are kept."""
UNLINKED_AT_ONCE = 500
REDIS_SECONDS = 5.0
FIRST_VERSION_WITH_TRANSACTION_TIMEOUT = 170_000
TRANSACTION_TIMEOUT = b"SET transaction_timeout = 0;\n"
"""Newer tools say this also to servers that do not know it."""

BEGINNING = b"""\
BEGIN;
SET LOCAL lock_timeout = '10s';
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
"""
READY = b"everything is in\n"
END = b"SELECT '%s';\n" % READY.rstrip()


def restore(database: TargetDatabase, redis_url: str, path: Path, *, tools: Tools, advance: Advance) -> None:
    """Put a backup in the place of all that is in the database, and bring it to this version's tables. Raises
    Unavailable or ToolError: then the database is as before. Raises MigrationFailed: then only that is left to do."""
    forget_deliveries(redis_url)
    _replace(database, path, tools=tools, advance=advance)
    # A worker that still ran may have marked what the backup does not know.
    forget_deliveries(redis_url)
    upgrade(database)


def forget_deliveries(redis_url: str) -> int:
    """Have Redis forget which deliveries it has seen, and the answers it keeps; how many keys. Raises Unavailable."""
    forgotten = 0
    try:
        retry = Retry(NoBackoff(), 0)
        with Redis.from_url(redis_url, **REDIS_OPTIONS, socket_timeout=REDIS_SECONDS, retry=retry) as redis:
            for pattern in FORGOTTEN:
                found = redis.scan_iter(match=pattern, count=UNLINKED_AT_ONCE)
                while keys := list(islice(found, UNLINKED_AT_ONCE)):
                    redis.unlink(*keys)
                    forgotten += len(keys)
    except (RedisError, OSError) as error:
        raise Unavailable("Redis does not answer, and it has to forget what it has seen.", hint=str(error)) from error
    return forgotten


def users_of(connection: Connection) -> list[str]:
    """Who of us is connected to the database, beside session-cli: such as `session-relay worker`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND application_name LIKE 'session-relay %'"
            " AND application_name <> 'session-relay cli' ORDER BY 1"
        )
        return [name for (name,) in cursor]


def strangers_in(connection: Connection) -> list[str]:
    """Tables that are not of this version of this program, and would be lost: another program's, or a newer one's."""
    ours = [*Base.metadata.tables, "alembic_version"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL (%s)", (ours,))
        return sorted(name for (name,) in cursor)


def _replace(database: TargetDatabase, path: Path, *, tools: Tools, advance: Advance) -> None:
    """Empty the database and fill it, in one transaction: only when the whole backup was read is it committed."""
    with database.connect("cli") as connection:
        is_new = connection.server_version >= FIRST_VERSION_WITH_TRANSACTION_TIMEOUT
    with _psql(database, tools) as (script, answers):
        script.write(BEGINNING)
        for line in script_of(path, tools):
            if not is_new and line == TRANSACTION_TIMEOUT:
                continue
            script.write(line)
            if line.startswith(b"COPY ") and COPY.fullmatch(line):
                advance()
        script.write(END)
        script.flush()
        # Who is killed before that has sent no COMMIT ahead.
        is_complete = READY in answers
        if is_complete:
            script.write(b"COMMIT;\n")
    if not is_complete:
        raise ToolError("psql ended before everything was in; nothing was changed.")


@contextlib.contextmanager
def _psql(database: TargetDatabase, tools: Tools) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Input and output of a psql that stops at the first error. What was not committed when it ends is undone."""
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
            with contextlib.suppress(BrokenPipeError):  # Its own words, below, say more.
                yield process.stdin, process.stdout
                process.stdin.close()
            reap(process, errors)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
