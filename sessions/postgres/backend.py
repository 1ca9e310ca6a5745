"""The Postgres store for command-line tools. Each call is its own transaction; changes hold the shard's lock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Literal

from sqlalchemy import Connection, select
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from models.commands.definitions import ReadCommand
from models.errors import RelayError, Unavailable
from models.field_types import MAX_CHARACTERS
from models.queue.inbox import Entry, shard_of
from models.settings import Settings
from models.tables import SESSIONS
from sessions.backend import Imported
from sessions.commands.inline_execution import direct_entry, parse_direct, parse_list, plain_page, respond, response_of
from sessions.commands.manager import SessionManager
from sessions.commands.store import too_slow, value_refused
from sessions.documents.import_validation import read_document
from sessions.postgres.commands.locks import lock_shard
from sessions.postgres.commands.store import PostgresStore
from sessions.postgres.connections import (
    create_engine,
    diagnose,
    is_bad_value,
    is_too_slow,
    is_unavailable,
    unavailable,
)
from sessions.postgres.documents.imports import import_session
from sessions.postgres.operations.schema_revision import describe_mismatch, read_revision
from sessions.postgres.reads.read_commands import (
    export_markdown,
    export_session,
    page,
    read,
    read_events,
)
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page

SPOOL_BYTES = 1_048_576
"""Exports are buffered, in a temporary file beyond this size, so that slow readers do not keep a transaction open."""
PART_BYTES = 65_536
POLL_SECONDS = 0.5
"""Interval between checks for new events."""


class PostgresBackend:
    """Implements `sessions.backend.Backend`. Applies commands immediately, ahead of those waiting in the inbox."""

    def __init__(self, settings: Settings, *, source: str = "cli") -> None:
        """Does not connect yet. Raises SettingsError without DATABASE_URL."""
        self._engine = create_engine(settings, application_name=f"session-relay {source}", pool_size=2)
        self._source = source
        self._is_checked = False

    def send(
        self, command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
    ) -> dict[str, Any]:
        """Apply a command. Raises the error of a rejected command, and Unavailable, also if the session's shard stays
        locked for too long."""
        submission = parse_direct(command, data, session_id=session_id, delivery_id=delivery_id)
        entry = direct_entry(submission, source=self._source)
        with self._transaction() as connection:
            outcome = _answer(connection, entry, submission.command)
        if isinstance(outcome, RelayError):
            raise outcome
        return outcome

    def page(self, command: str, data: dict[str, Any], *, session_id: str | None) -> Page:
        """Return a page of a list command."""
        asked, session_id = parse_list(command, data, session_id=session_id)
        with self._transaction() as connection:
            found = page(connection, asked, _scope(session_id))
        return plain_page(found)

    def events(self, session_id: str, *, after: str | None, limit: int, wait_seconds: float) -> Page:
        """Return events after a cursor, waiting up to `wait_seconds` for the first."""
        ends_at = time.monotonic() + wait_seconds
        while True:
            with self._transaction() as connection:
                found = read_events(
                    connection, session_id=session_id, after=after, limit=limit, max_characters=MAX_CHARACTERS
                )
            left = ends_at - time.monotonic()
            if found.items or left <= 0:
                return plain_page(found)
            time.sleep(min(left, POLL_SECONDS))

    def export(self, session_id: str, *, format: Literal["json", "markdown"]) -> Iterator[bytes]:
        """Export a complete session as a document. Raises NotFound before the first part."""
        spool: IO[bytes] = SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - closed after reading
        try:
            with self._transaction(one_state=True) as connection:
                if format == "json":
                    spool.writelines(export_session(connection, session_id))
                else:
                    spool.writelines(part.encode() for part in export_markdown(connection, session_id))
            spool.seek(0)
        except BaseException:
            spool.close()
            raise
        return _parts_of(spool)

    def import_document(self, document: IO[bytes]) -> Imported:
        """Import a session in one transaction."""
        checked = read_document(document)
        with self._transaction() as connection:
            return import_session(connection, checked)

    def session_ids(self) -> Iterator[str]:
        """Return the ids of all sessions, the oldest first."""
        statement = select(SESSIONS.c.session_id).order_by(SESSIONS.c.created_at, SESSIONS.c.session_id)
        with self._transaction() as connection:
            found = connection.execute(statement).scalars().all()
        return iter(found)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, one_state: bool = False) -> Iterator[Connection]:
        """Run a transaction and convert its errors to RelayErrors."""
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ") if one_state else self._engine
        try:
            if not self._is_checked:
                with self._engine.connect() as connection:
                    _check_schema(connection)
                self._is_checked = True
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            if is_unavailable(error):
                raise unavailable() from error
            if is_too_slow(error):
                raise too_slow() from error
            if is_bad_value(error):
                raise value_refused() from error
            raise


def _scope(session_id: str | None, *, source: str | None = None) -> ReadScope:
    return ReadScope(session_id=session_id, session_glob=None, now=datetime.now(UTC), source=source)


def _answer(connection: Connection, entry: Entry, command: Any) -> dict[str, Any] | RelayError:
    store = PostgresStore(connection)
    if isinstance(command, ReadCommand):
        return respond(entry, read(connection, command, _scope(entry.session_id, source=entry.source)), store)
    try:
        lock_shard(connection, shard_of(entry.session_id))
    except SQLAlchemyError as error:
        if is_unavailable(error):
            raise Unavailable("Another process is changing this session; retry in a few seconds.") from error
        raise
    [applied] = SessionManager(store).apply([entry])
    return response_of(applied, store)


def _check_schema(connection: Connection) -> None:
    try:
        revision = read_revision(connection)
    except ProgrammingError as error:
        hint = "Grant the user of DATABASE_URL read and write access to the tables, or use their owner."
        raise Unavailable(f"{diagnose(error)} {hint}", code="no_access", hint=hint) from error
    if mismatch := describe_mismatch(revision, upgrade="session-cli db upgrade"):
        found, advice = mismatch
        raise Unavailable(f"{found} {advice}", code="schema_differs", hint=advice)


def _parts_of(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        while part := spool.read(PART_BYTES):
            yield part
