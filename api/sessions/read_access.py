"""Authorizes reads by GET: for keys with the scope read, and for agents in sessions whose tasks they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from starlette.requests import Request

from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_scope, require_session
from sessions.postgres.tasks.leases import holds_task
from sessions.rules.task_access import no_task_of_session

T = TypeVar("T")


async def authorize_reader(access: AccessControl, request: Request) -> Caller:
    """Authenticate a caller that may read at least something. Raises Unauthorized, Forbidden or Unavailable."""
    caller = await access.authenticate(request)
    if not caller.has("agent"):
        require_scope(caller, "read")
    return caller


def reading(caller: Caller, session_id: str | None, work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """Wrap work so that it checks in its transaction that an agent holds a task of the session, and raises Forbidden
    otherwise. All other checks are made at once, and raise Forbidden."""
    require_session(caller, session_id)
    if caller.has("read"):
        return work
    if session_id is None:
        require_scope(caller, "read")

    def work_if_held(connection: Connection) -> T:
        if not holds_task(connection, caller.source, session_id or ""):
            raise no_task_of_session("read")
        return work(connection)

    return work_if_held
