"""`GET /v1/status`: the system's health in anonymous numbers. Works while Postgres or Redis is away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.operations.status_probe import observe
from models.version import version
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_all_sessions, require_scope
from relay.http.query_parameters import NoParameters, decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route

NO_INBOX = "The inbox does not answer at the moment; nothing was stored."


class Status:
    """The endpoint."""

    def __init__(
        self,
        *,
        access: AccessControl,
        database: Database,
        redis: Redis,
        refusal: Callable[[], str | None],
        max_backlog: int,
    ) -> None:
        """`refusal` returns the reason why webhooks are rejected, or None."""
        self._access = access
        self._database = database
        self._redis = redis
        self._refusal = refusal
        self._max_backlog = max_backlog

    @property
    def routes(self) -> list[Route]:
        """The route of the status."""
        return [route("read_status", self.status)]

    async def status(self, request: Request) -> Response:
        """Return the whole status, with the caller's scopes. The scope `read` suffices: a key that reads all sessions
        may know how many commands wait."""
        caller = await self._access.authorize(request, "read")
        require_all_sessions(caller)
        decode_parameters(request.query_params, NoParameters)
        return JsonResponse(await self.content(caller))

    async def content(self, caller: Caller) -> dict[str, Any]:
        """Return the status for a caller that may read all sessions."""
        require_scope(caller, "read")
        require_all_sessions(caller)
        observed = await observe(self._redis, self._database, max_backlog=self._max_backlog)
        # The cached load is up to a second old; the observation is current.
        refusal = self._refusal() or (None if observed["inbox"] else NO_INBOX)
        return {
            "version": version(),
            "now": datetime.now(UTC),
            "key": {"name": caller.source, "scopes": caller.scopes},
            "webhooks": {"taken": refusal is None, "reason": refusal},
            **observed,
        }
