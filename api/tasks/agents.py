"""Lists and registers the agents to which tasks can be delegated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.list_response import list_response
from models import field_types as v
from models.commands.lenient_decoding import decode_leniently
from models.decoding.strict import decode_json
from models.tables import AGENTS, TASKS
from models.timestamps import format_utc
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_all_sessions, require_scope
from relay.http.query_parameters import NoParameters, decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from sessions.reads.results import Page
from sessions.rules.state import ONLINE_SECONDS

MAX_REQUEST_BYTES = 65_536
SHOWN_TASKS = 20
"""The maximum number of claimed tasks listed per agent."""


class AgentParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of GET /v1/agents."""

    limit: v.Limit = 50
    cursor: v.Id | None = None


class AgentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Registration of an agent."""

    name: v.Id
    type: Annotated[v.Label, Meta(description="Type of the tasks that it claims if they name no agent; general: all")]
    command: Annotated[str, Meta(max_length=2_000, description="The command that starts it; informational")] | None = (
        None
    )
    max_concurrent: Annotated[int, Meta(ge=1, le=1_000, description="Maximum number of tasks claimed at a time")] = 1
    capabilities: v.Names = msgspec.field(default_factory=list)


class Agents:
    """The endpoints."""

    def __init__(self, *, access: AccessControl, database: Database) -> None:
        self._access = access
        self._database = database

    @property
    def routes(self) -> list[Route]:
        """The routes for listing and registering agents."""
        return [
            route("read_agents", self.list),
            route("register_agent", self.register),
        ]

    async def list(self, request: Request) -> Response:
        """List all agents by name, with their claimed tasks that the caller may see."""
        caller = await self._access.authorize(request, "read")
        return list_response(await self.page(caller, decode_parameters(request.query_params, AgentParameters)))

    async def page(self, caller: Caller, parameters: AgentParameters) -> Page:
        """Return a page of the list."""
        require_scope(caller, "read")
        work = partial(_list_agents, parameters=parameters, caller=caller)
        return await self._database.read(work, source=caller.source)

    async def register(self, request: Request) -> Response:
        """Register an agent or update its registration. Repeatable."""
        caller = await self._access.authorize(request, "admin")
        require_all_sessions(caller)
        decode_parameters(request.query_params, NoParameters)
        body = await self._access.read_body(request, caller, limit=MAX_REQUEST_BYTES)
        decode_json(body)
        registration = decode_leniently(body, AgentRequest)
        return JsonResponse(
            await self._database.write(partial(_register, registration=registration), source=caller.source)
        )


def _register(connection: Connection, *, registration: AgentRequest) -> dict[str, Any]:
    fields = msgspec.structs.asdict(registration)
    changes = {name: value for name, value in fields.items() if name != "name"}
    statement = (
        insert(AGENTS)
        .values(**fields, registered_at=func.now(), is_registered=True)
        .on_conflict_do_update(index_elements=[AGENTS.c.name], set_=changes | {"is_registered": True})
        .returning(AGENTS, literal_column("xmax = 0").label("created"))
    )
    row = connection.execute(statement).one()
    return _describe(row, datetime.now(UTC)) | {"command": row.command, "created": row.created}


def _list_agents(connection: Connection, *, parameters: AgentParameters, caller: Caller) -> Page:
    statement = select(AGENTS).order_by(AGENTS.c.name).limit(parameters.limit + 1)
    if parameters.cursor is not None:
        statement = statement.where(AGENTS.c.name > parameters.cursor)
    rows = connection.execute(statement).all()
    page_rows = rows[: parameters.limit]
    claimed = _find_claimed(connection, [row.name for row in page_rows])
    now = datetime.now(UTC)
    items = []
    for row in page_rows:
        visible = [task for task in claimed.get(row.name, []) if caller.sees(task["session_id"])]
        items.append(_describe(row, now) | {"holding": len(visible), "holds": visible[:SHOWN_TASKS]})
    return Page(items=items, next_cursor=items[-1]["name"] if len(rows) > parameters.limit else None)


def _find_claimed(connection: Connection, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    claimed: dict[str, list[dict[str, Any]]] = {}
    columns = (TASKS.c.claimed_by, TASKS.c.session_id, TASKS.c.task_id, TASKS.c.status, TASKS.c.worker)
    statement = (
        select(*columns, TASKS.c.claimed_at, TASKS.c.lease_expires_at)
        .where(TASKS.c.claimed_by.in_(names), TASKS.c.lease_expires_at.is_not(None))
        .order_by(TASKS.c.claimed_at)
    )
    for row in connection.execute(statement):
        task = {name: getattr(row, name) for name in ("session_id", "task_id", "status", "worker")}
        times = {name: getattr(row, name) for name in ("claimed_at", "lease_expires_at")}
        task |= {name: time and format_utc(time) for name, time in times.items()}
        claimed.setdefault(row.claimed_by or "", []).append(task)
    return claimed


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
