"""Runs read commands for a caller: the one path of all reads by GET, for programs and for the pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from api.database import Database
from api.sessions.read_access import reading
from models.commands.definitions import ReadCommand
from relay.auth.authentication import Caller
from sessions.postgres.reads.read_commands import page, read
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page, ReadResult

T = TypeVar("T")


class Reader:
    """Reads in one session, or with None in all that the caller may see. Every method raises Forbidden, NotFound,
    Invalid, TooManyRequests or Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, caller: Caller, session_id: str | None, command: ReadCommand) -> Page:
        """Return a page of a list."""
        return await self.run(caller, session_id, partial(_page, command=command))

    async def read(self, caller: Caller, session_id: str | None, command: ReadCommand) -> ReadResult:
        """Return the result of any read command."""
        return await self.run(caller, session_id, partial(_read, command=command))

    async def run(
        self,
        caller: Caller,
        session_id: str | None,
        work: Callable[[Connection, ReadScope], T],
        *,
        one_state: bool = False,
    ) -> T:
        """Return the result of several reads in one transaction; with `one_state` all see the same snapshot."""
        scope = ReadScope(
            session_id=session_id, session_glob=caller.session_glob, now=datetime.now(UTC), source=caller.source
        )
        checked = reading(caller, session_id, lambda connection: work(connection, scope))
        return await self._database.read(checked, source=caller.source, one_state=one_state)


def _page(connection: Connection, read_scope: ReadScope, *, command: ReadCommand) -> Page:
    return page(connection, command, read_scope)


def _read(connection: Connection, read_scope: ReadScope, *, command: ReadCommand) -> ReadResult:
    return read(connection, command, read_scope)
