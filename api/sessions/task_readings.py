"""Reads a task again for a sender that sent get_task and waits: from Postgres, as a GET of the task does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Connection

from api.database import Database
from api.sessions.read_access import reading
from models.commands.definitions import GetTask
from models.commands.responses import failure, success
from models.errors import Rejected, TooManyRequests
from models.queue.inbox import Entry, Outcome
from relay.auth.authentication import Caller
from sessions.postgres.reads.read_commands import find_updates, read
from sessions.reads.results import ReadResult
from sessions.responses.task_updates import listener_of

News = list[dict[str, Any]]


async def read_task(database: Database, caller: Caller, entry: Entry, command: GetTask) -> Outcome:
    """Read the task of an entry, and answer as a worker does, with the news of its session. Raises Unavailable, or
    TooManyRequests if the caller reads too much already."""

    def look(connection: Connection) -> tuple[ReadResult, News]:
        now = datetime.now(UTC)
        where: dict[str, Any] = {"session_id": entry.session_id, "session_glob": entry.session_glob}
        answer = read(connection, command, **where, now=now, source=entry.source)
        listener = listener_of(entry, b"{}")
        return answer, find_updates(connection, [listener], now).get(listener, []) if listener else []

    named: dict[str, Any] = {"command": entry.command, "session_id": entry.session_id}
    named["delivery_id"] = entry.delivery_id
    try:
        answer, news = await database.read(reading(caller, entry.session_id, look), source=caller.source)
    except TooManyRequests:
        raise
    except Rejected as error:
        body = failure(error, **named, now=datetime.now(UTC))
        return Outcome(status=error.status, body=Raw(msgspec.json.encode(body)))
    body = success(**named, now=datetime.now(UTC), message=answer.message, data=answer.data)
    if news:
        body["updates"] = news
    return Outcome(status=200, body=Raw(msgspec.json.encode(body)))
