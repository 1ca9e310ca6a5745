"""What all pages of one session share: its head with the counts, and the position from which the page stays live."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request

from api.pages.visitors import Visitor
from api.sessions.reader import Reader
from models import field_types as v
from models.commands.definitions import GetSessionSummary
from relay.http.query_parameters import decode_parameters
from sessions.postgres.reads.read_commands import last_positions, read
from sessions.reads.read_scope import ReadScope

HEAD_CHARACTERS = 4_000
"""For the session's context, which may be long."""

T = TypeVar("T")
Work = Callable[[Connection, ReadScope], T]


class ChosenSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The session in the path."""

    session_id: v.Id


class SessionPages:
    """Reads what a page of a session shows, in one snapshot."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def read(self, request: Request, visitor: Visitor, work: Work[T]) -> tuple[dict[str, Any], T]:
        """Return the context that all templates of a session need, and the result of `work`."""
        session_id = request.path_params["session_id"]
        decode_parameters(type(request.query_params)(), ChosenSession, session_id=session_id)
        head, position, result = await self._reader.run(
            visitor.caller, session_id, partial(_read_all, work=work), one_state=True
        )
        context = {"visitor": visitor, "session": head, "session_id": session_id, "position": position}
        return context, result


def _read_all(connection: Connection, read_scope: ReadScope, *, work: Work[T]) -> tuple[dict[str, Any], int, T]:
    session_id = read_scope.require_session()
    head = read(connection, GetSessionSummary(max_characters=HEAD_CHARACTERS), read_scope).data
    position = last_positions(connection, [session_id]).get(session_id, 0)
    return head, position, work(connection, read_scope)
