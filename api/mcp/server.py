"""The MCP server: maps protocol messages to handlers, and their errors to protocol errors."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable
from typing import Any, TypeVar

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from starlette.requests import Request

from api.mcp.resources import PROMPT, McpResources
from api.mcp.results import failed, protocol_error, succeeded
from api.mcp.tool_handlers import ToolHandlers
from api.mcp.tools import INSTRUCTIONS, choose_tools, tools
from models.errors import RelayError
from models.version import version
from relay.http.responses import RecordRejection

T = TypeVar("T")
Context = ServerRequestContext[Any, Request]

logger = logging.getLogger(__name__)


def make_server(calls: ToolHandlers, *, on_error: RecordRejection) -> Server[Any]:
    """Create the server. Each request's state must hold the caller and the message, with the arguments undecoded.
    `on_error` records rejected requests."""
    resources, made = McpResources(calls), {tool.name: tool for tool in tools()}

    async def list_tools(context: Context, _: object) -> types.ListToolsResult:
        request = _request_of(context)
        try:
            names = choose_tools(request.query_params.get("tools"), request.state.caller)
        except RelayError as error:
            on_error(request.scope, error)
            raise MCPError.from_error_data(protocol_error(error)) from error
        return types.ListToolsResult(tools=[made[name] for name in names])

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        request = _request_of(context)
        if params.name not in calls.names:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool. Available tools: {', '.join(calls.names)}.")
        try:
            return succeeded(await _outcome(calls.call(request, params.name, request.state.message)))
        except RelayError as error:
            on_error(request.scope, error)
            return failed(error)

    async def list_resources(
        context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        return await read(context, resources.list_sessions(_request_of(context), params.cursor if params else None))

    async def list_templates(_: Context, __: object) -> types.ListResourceTemplatesResult:
        return resources.list_templates()

    async def read_resource(context: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        return await read(context, resources.read(_request_of(context), params.uri))

    async def list_prompts(_: Context, __: object) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[PROMPT])

    async def get_prompt(context: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != PROMPT.name:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt. The only prompt is {PROMPT.name}.")
        wanted = {name: value or None for name, value in (params.arguments or {}).items()}
        session_id, max_characters = wanted.get("session_id"), wanted.get("max_characters")
        return await read(context, resources.resume(_request_of(context), session_id, max_characters))

    async def read(context: Context, work: Awaitable[T]) -> T:
        try:
            return await _outcome(work)
        except RelayError as error:
            on_error(_request_of(context).scope, error)
            raise MCPError.from_error_data(protocol_error(error)) from error

    return Server(
        "session-relay",
        version=version(),
        title="session-relay",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )


async def _outcome(work: Awaitable[T]) -> T:
    """Await the work and return its result. Logs the traceback of a bug and raises a RelayError for it."""
    try:
        return await work
    except (RelayError, MCPError):
        raise
    except Exception as error:
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("Bug: %s at /mcp", type(error).__name__, extra={"frames": frames})
        raise RelayError("Internal error; the relay has logged it.") from error


def _request_of(context: Context) -> Request:
    assert context.request is not None
    return context.request
