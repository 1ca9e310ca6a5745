"""The agents that tasks can be delegated to, as a list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.reads import list_response
from models import vocabulary as v
from models.tables import AgentRow
from models.timestamps import format_utc
from relay.gate import Gate
from relay.parameters import decode_parameters
from sessions.answers import Page
from sessions.state import ONLINE_SECONDS


class AgentParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/agents."""

    limit: v.Limit = 50
    cursor: v.Id | None = None


class Agents:
    """The endpoint."""

    def __init__(self, *, gate: Gate, database: Database) -> None:
        self._gate = gate
        self._database = database

    @property
    def routes(self) -> list[Route]:
        """Where agents are listed."""
        return [Route("/v1/agents", self.list)]

    async def list(self, request: Request) -> Response:
        """All agents, by name."""
        await self._gate.admit(request, "read")
        asked = decode_parameters(request.query_params, AgentParameters)
        return list_response(await self._database.read(partial(_list_agents, asked=asked, now=datetime.now(UTC))))


def _list_agents(connection: Connection, *, asked: AgentParameters, now: datetime) -> Page:
    statement = select(AgentRow.__table__).order_by(AgentRow.name).limit(asked.limit + 1)
    if asked.cursor is not None:
        statement = statement.where(AgentRow.name > asked.cursor)
    rows = connection.execute(statement).all()
    items = [_describe(row, now) for row in rows[: asked.limit]]
    return Page(items=items, next_cursor=items[-1]["name"] if len(rows) > asked.limit else None)


def _describe(row: Any, now: datetime) -> dict[str, Any]:
    seen = row.last_seen_at
    return {
        "name": row.name,
        "type": row.type,
        "max_concurrent": row.max_concurrent,
        "capabilities": row.capabilities,
        "online": seen is not None and seen >= now - timedelta(seconds=ONLINE_SECONDS),
        "registered_at": format_utc(row.registered_at),
        "last_seen_at": seen and format_utc(seen),
    }
