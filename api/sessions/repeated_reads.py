"""Repeats a read for a sender that waits for it, as a GET does: with more time, and in nobody's way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Connection

from api.database import Database
from api.sessions.read_access import reading
from models.commands.definitions import ReadCommand
from models.commands.responses import failure, success
from models.errors import Rejected, TooManyRequests
from models.queue.inbox import Entry, Outcome
from relay.auth.authentication import Caller
from sessions.commands.store import too_slow
from sessions.postgres.connections import unavailable
from sessions.postgres.reads.read_commands import find_updates, read
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import ReadResult
from sessions.responses.task_updates import listener_of

Updates = list[dict[str, Any]]


async def read_again(database: Database, caller: Caller, entry: Entry, command: ReadCommand) -> Outcome:
    """Repeat the read of an entry. Returns the same outcome as a worker, with the session's updates. Raises
    Unavailable, or TooManyRequests if the caller exceeds its share of reads."""

    def read_with_updates(connection: Connection) -> tuple[ReadResult, Updates]:
        now = datetime.now(UTC)
        read_scope = ReadScope(
            session_id=entry.session_id, session_glob=entry.session_glob, now=now, source=entry.source
        )
        answer = read(connection, command, read_scope)
        response = msgspec.json.encode({"data": answer.data}) if entry.session_id is None else b""
        listener = listener_of(entry, response)
        return answer, find_updates(connection, [listener], now).get(listener, []) if listener else []

    named: dict[str, Any] = {"command": entry.command, "session_id": entry.session_id}
    named["delivery_id"] = entry.delivery_id
    try:
        work = reading(caller, entry.session_id, read_with_updates)
        answer, updates = await database.read(work, source=caller.source)
    except TooManyRequests:
        raise
    except Rejected as error:
        if error.code == too_slow().code:  # Temporary, so it must not replace what was read before.
            raise unavailable() from error
        body = failure(error, **named, now=datetime.now(UTC))
        return Outcome(status=error.status, body=Raw(msgspec.json.encode(body)))
    body = success(**named, now=datetime.now(UTC), message=answer.message, data=answer.data)
    if updates:
        body["updates"] = updates
    return Outcome(status=200, body=Raw(msgspec.json.encode(body)))
