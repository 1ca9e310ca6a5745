"""Probes one MCP server with the official client: connects, lists its tools, and makes one call.

mcp_doctor.py judges the result. A program that was started for the probe is killed with all its children.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import anyio
import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from agent.http.relay_url import is_loopback
from cli.doctor.mcp_config import McpServer

START_SECONDS = 90.0
"""The limit for starting a program, which npx may have to download first."""
CONNECT_SECONDS = 10.0
STEP_SECONDS = 20.0
"""The limit for listing the tools, and for the call."""
LARGEST_ANSWER_BYTES = 4 * 2**20
MOST_PAGES = 20
MOST_TOOLS = 1_000
MOST_COMPLAINT_BYTES = 65_536
"""The end of a program's stderr that is kept."""
PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "TMPDIR")
"""Variables that a program needs for network access, passed on beside HOME, PATH and the like."""
PASSED_ON_PREFIXES = ("npm_config_", "XDG_", "LC_", "UV_")
RIGHTS = (
    "SELECT CASE WHEN current_setting('is_superuser') = 'on' OR EXISTS (SELECT 1 FROM pg_class"
    " WHERE relkind IN ('r', 'p') AND relnamespace NOT IN ('pg_catalog'::regnamespace,"
    " 'information_schema'::regnamespace) AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))"
    " THEN 'may' || ' write' ELSE 'may' || ' only read' END AS rights"
)
MAY_WRITE = "may write"
"""The result of RIGHTS for a role that can write. The query builds it from parts, so that an echoed query differs."""


class HarmlessCall(NamedTuple):
    """A read-only call, for servers that have these tools."""

    needs: frozenset[str]
    tool: str
    arguments: dict[str, Any]
    title: str


CALLS = (
    HarmlessCall(
        frozenset({"send_command", "resume_bundle"}),
        "send_command",
        {"command": "list_sessions", "data": {"limit": 1}},
        "list_sessions",
    ),
    HarmlessCall(frozenset({"execute_sql"}), "execute_sql", {"sql": RIGHTS}, "execute_sql"),
    HarmlessCall(frozenset({"get_me"}), "get_me", {}, "get_me"),
    HarmlessCall(frozenset({"list_allowed_directories"}), "list_allowed_directories", {}, "list_allowed_directories"),
)


class Reached(NamedTuple):
    """A server that responded."""

    title: str
    tools: list[str]
    call: str
    """The call that was made; empty if no tool is known to be read-only."""
    refusal: str
    """The error of the call; empty if it succeeded."""
    may_write: bool


Cause = Literal["not installed", "no connection", "too slow", "refused", "ended", "other"]


class Unreached(Exception):
    """The server did not respond. `status` is the HTTP status; `complaint` is the end of a program's stderr."""

    def __init__(self, cause: Cause, reason: str, *, status: int = 0, complaint: str = "") -> None:
        super().__init__(reason)
        self.cause = cause
        self.status = status
        self.complaint = complaint


async def reach(server: McpServer, environment: Mapping[str, str]) -> Reached:
    """Connect, list the tools, and make one call, each within its limit. Raises Unreached."""
    statuses: list[int] = []
    starts = server.kind == "stdio"
    with tempfile.TemporaryDirectory(prefix="session-cli-mcp-") as name, tempfile.TemporaryFile("w+b") as complaints:
        limit, step = (START_SECONDS, "start") if starts else (CONNECT_SECONDS, "answer")
        try:
            with anyio.move_on_after(limit) as scope:
                async with _client(server, environment, Path(name), complaints, statuses) as client:
                    limit, step = STEP_SECONDS, "list its tools"
                    scope.deadline = anyio.current_time() + limit
                    tools = await _list_tools(client)
                    step = "answer a call"
                    scope.deadline = anyio.current_time() + limit
                    return await _call(client, tools)
        except Exception as error:
            if not scope.cancel_called:
                status = statuses[-1] if statuses and statuses[-1] >= 400 else 0
                complaint = _end_of(complaints)
                cause, reason = _cause(error, status, starts=starts)
                raise Unreached(cause, reason, status=status, complaint=complaint) from error
        raise Unreached("too slow", f"The server did not {step} within {limit:.0f} s.", complaint=_end_of(complaints))


@asynccontextmanager
async def _client(
    server: McpServer, environment: Mapping[str, str], folder: Path, complaints: IO[bytes], statuses: list[int]
) -> AsyncIterator[Client]:
    if server.kind == "stdio":
        leader = folder / "leader"
        parameters = StdioServerParameters(
            command="/bin/sh",
            # Record the process group, of which members may outlive the program.
            args=["-c", 'echo $$ > "$0" && exec "$@"', str(leader), _program(server, environment), *server.arguments],
            env=_passed_on(environment) | server.variables,
            cwd=server.folder,
        )
        with os.fdopen(os.dup(complaints.fileno()), "w") as errlog:
            try:
                async with Client(stdio_client(parameters, errlog=errlog), cache=None) as client:
                    yield client
            finally:
                _end_group(leader)
        return

    async def check_response(response: httpx2.Response) -> None:
        if response.request.method == "POST":
            statuses.append(response.status_code)
        if "content-encoding" in response.headers:
            raise ValueError("The response is compressed, although the request asked for identity encoding.")
        response.stream = _Limited(response.stream)

    async with (
        httpx2.AsyncClient(
            headers={"Accept-Encoding": "identity", **server.headers},
            timeout=httpx2.Timeout(STEP_SECONDS, connect=CONNECT_SECONDS),
            event_hooks={"response": [check_response]},
            trust_env=not is_loopback(server.url),
        ) as http,
        Client(streamable_http_client(server.url, http_client=http), cache=None) as client,
    ):
        yield client


class _Limited(httpx2.AsyncByteStream):
    """A response body of limited size."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > LARGEST_ANSWER_BYTES:
                raise ValueError(f"The response is larger than {LARGEST_ANSWER_BYTES // 2**20} MiB.")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _list_tools(client: Client) -> list[str]:
    names: list[str] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        names += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None or len(names) > MOST_TOOLS:
            break
    return names


async def _call(client: Client, tools: list[str]) -> Reached:
    info = client.server_info
    title = " ".join(filter(None, (info.name, info.version))) if info else ""
    call = next((call for call in CALLS if call.needs <= set(tools)), None)
    if call is None:
        return Reached(title, tools, "", "", may_write=False)
    refusal, text = "", ""
    try:
        result = await client.call_tool(call.tool, call.arguments)
    except MCPError as error:
        refusal = str(error) or "no reason given"
    else:
        text = " ".join(part.text for part in result.content if part.type == "text")
        refusal = (text or "no reason given") if result.is_error else ""
    may_write = call.tool == "execute_sql" and not refusal and MAY_WRITE in text
    return Reached(title, tools, call.title, refusal, may_write=may_write)


def _program(server: McpServer, environment: Mapping[str, str]) -> str:
    path = server.variables.get("PATH") or environment.get("PATH")
    command = server.command if os.sep not in server.command else str(server.folder / server.command)
    program = shutil.which(command, path=path)
    if program is None:
        raise FileNotFoundError(server.command)
    return program


def _passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    prefixes = tuple(prefix.upper() for prefix in PASSED_ON_PREFIXES)
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in PASSED_ON or name.upper().startswith(prefixes)
    }


def _end_group(leader: Path) -> None:
    """Kill the remaining processes of the program's group."""
    with suppress(OSError, ValueError):
        os.killpg(int(leader.read_text()), signal.SIGKILL)


def _cause(error: BaseException, status: int, *, starts: bool) -> tuple[Cause, str]:
    """Classify the innermost error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    reason = str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "not installed", f"{error} is not installed."
    if isinstance(error, httpx2.TimeoutException):
        return "too slow", "The server did not respond in time."
    if isinstance(error, httpx2.TransportError):
        return "no connection", reason
    if status:
        return "refused", reason
    return ("ended" if starts else "other"), reason


def _end_of(complaints: IO[bytes]) -> str:
    """Return the first error lines of a program's stderr, else its last lines."""
    complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - MOST_COMPLAINT_BYTES))
    lines = [line.strip() for line in complaints.read().decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    return " / ".join(telling[:3] or lines[-3:])
