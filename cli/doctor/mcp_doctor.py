"""Checks the MCP servers of a configuration file, and explains failures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from agent.http.relay_url import PLAIN_HTTP_VARIABLE, is_loopback, may_send_secrets, plain_http_hosts
from cli.doctor.findings import Finding
from cli.doctor.mcp_config import McpServer
from cli.doctor.mcp_probe import Reached, Unreached, reach
from cli.output.humanize import count

SHOWN_TOOLS = 12
LONGEST_NAME = 48
LONGEST_TEXT = 300
REMEDIES = {
    "API_KEY": "Create a key with `session-cli keys create NAME --scope write`, and set API_KEY",
    "READER_DATABASE_URL": "Create a read-only role with `session-cli db reader`, and set READER_DATABASE_URL",
    "GITHUB_TOKEN": "Create a token at https://github.com/settings/personal-access-tokens, and set GITHUB_TOKEN",
    "MCP_FILES_DIR": "Choose a directory that contains no keys, and set MCP_FILES_DIR",
}
"""Remedies for unset variables."""
STATUSES = {
    401: ("The server rejected the key or token", "Create a new one, and set it where the MCP client is started."),
    403: ("The key or token lacks permission", "Use one with the required permission."),
    404: ("No MCP server at this URL", "Compare the URL with that of the server."),
    421: ("The server does not serve this host name", "Use the server's own host name."),
    429: ("The server's rate limit was exceeded", "Try again later."),
}
"""Details and remedies for HTTP statuses."""
INSTALLING = {"npx": "Install Node.js 24 or newer, which includes npx.", "uvx": "Install uv, which includes uvx."}


def examine_servers(
    servers: Sequence[McpServer], environment: Mapping[str, str], *, passed: Container[str] = ()
) -> list[Finding]:
    """Check all servers concurrently. Returns one finding for each, in order. A URL in the file is sent no environment
    variables except those in `passed`."""
    findings: dict[int, Finding] = {}

    async def examine_one(number: int, server: McpServer) -> None:
        findings[number] = await _examine(server, environment, passed)

    async def examine_all() -> None:
        async with anyio.create_task_group() as group:
            for number, server in enumerate(servers):
                group.start_soon(examine_one, number, server)

    with _silence():
        anyio.run(examine_all)
    return [findings[number] for number in range(len(servers))]


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress logs and warnings of the MCP client, which quote untrusted text."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


async def _examine(server: McpServer, environment: Mapping[str, str], passed: Container[str]) -> Finding:
    def trouble(detail: str, remedy: str) -> Finding:
        return Finding(server.name, "trouble", server.redact(detail, most=LONGEST_TEXT), remedy)

    if server.fault:
        return trouble(server.fault, "Correct its entry in the configuration file.")
    if server.lacks:
        detail = f"{' and '.join(server.lacks)} {'is' if len(server.lacks) == 1 else 'are'} not set."
        known = [REMEDIES[name] for name in server.lacks if name in REMEDIES]
        return trouble(detail, f"{known[0] if known else 'Set it'} where the MCP client is started.")
    if withheld := [name for name in server.sends if name not in passed]:
        detail = f"Skipped: the file would send {' and '.join(withheld)} to {_origin(server)}, which is not approved."
        remedy = f"If you trust this URL, pass {' '.join(f'--pass-env {name}' for name in withheld)}."
        return trouble(detail, remedy)
    if server.is_secret and not may_send_secrets(server.url, plain_http_hosts(environment)):
        detail = f"Skipped: {_origin(server)} is not encrypted, so others on the network could read the key."
        remedy = f"Use its https:// URL, or set {PLAIN_HTTP_VARIABLE} for a trusted network."
        return trouble(detail, remedy)
    try:
        reached = await reach(server, environment)
    except Unreached as error:
        return trouble(*_explain(server, error))
    return _judge(server, reached)


def _judge(server: McpServer, reached: Reached) -> Finding:
    """Judge a server that responded."""
    names = [server.redact(name, most=LONGEST_NAME) for name in reached.tools]
    listed = ", ".join(names[:SHOWN_TOOLS]) + (f" and {len(names) - SHOWN_TOOLS} more" if names[SHOWN_TOOLS:] else "")
    title = server.redact(reached.title, most=LONGEST_NAME) or "The server"
    detail = f"{title} has {count(len(names), 'tool')}{f': {listed}' if names else ''}."
    if reached.refusal:
        refusal = server.redact(reached.refusal, most=LONGEST_TEXT)
        remedy = "Check that the key, token or role has the required permissions."
        return Finding(server.name, "trouble", f"{detail} {reached.call} failed: {refusal}", remedy)
    detail += f" {reached.call} succeeded." if reached.call else " No tool was called: none is known to be read-only."
    if reached.may_write:
        remedy = "Use the URL of a read-only role: `session-cli db reader` creates one."
        return Finding(server.name, "warning", f"{detail} Its database role can write.", remedy)
    if server.kind == "http" and server.headers and server.url.startswith("http:") and not is_loopback(server.url):
        remedy = "Use its https:// URL."
        return Finding(server.name, "warning", f"{detail} The key is sent over the network unencrypted.", remedy)
    return Finding(server.name, "ok", detail)


def _explain(server: McpServer, error: Unreached) -> tuple[str, str]:
    """Return the detail and the remedy for a server that could not be reached."""
    complaint = f" Its stderr: {error.complaint}" if error.complaint else ""
    match error.cause:
        case "not installed":
            program = Path(server.command).name
            return str(error), INSTALLING.get(program, "Install it, or correct the command in the configuration file.")
        case "no connection" if is_loopback(server.url):
            return f"Cannot connect to {_origin(server)}: {error}", "Start it (`make up`), or correct its URL."
        case "no connection":
            return f"Cannot connect to {_origin(server)}: {error}", "Check the network and proxy settings."
        case "too slow":
            return f"{error}{complaint}", "Try again. The first start may take longer, while the program is downloaded."
        case "refused":
            known = STATUSES.get(error.status, ("The server returned an error", "Check its log."))
            return f"{known[0]} (HTTP {error.status}).", known[1]
        case "ended":
            return f"The program exited without responding.{complaint}", "Run its command by hand to see the error."
        case _:
            return f"Not an MCP server: {error}", "Compare the URL with that of the server."


def _origin(server: McpServer) -> str:
    """Return its URL without credentials, path and query."""
    parts = urlsplit(server.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
