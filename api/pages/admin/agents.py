"""Agents: who is online, and which tasks they hold."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.pages.rendering import more_url, render
from api.pages.visitors import Visitor
from api.tasks.agents import AgentParameters, Agents
from relay.http.query_parameters import decode_parameters


class AgentPage:
    """The page."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """List agents by name, with the tasks that they hold and the visitor may see."""
        found = await self._agents.page(visitor.caller, decode_parameters(request.query_params, AgentParameters))
        more = more_url(request, found.next_cursor, "cursor") if found.next_cursor else None
        return render("admin/agents.html", visitor=visitor, agents=found.items, more=more)
