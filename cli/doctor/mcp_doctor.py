"""A look at the MCP servers of a configuration file: which answer, and why the others do not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from agent.http.relay_url import PLAIN_HTTP_VARIABLE, is_loopback, may_send_secrets, plain_http_hosts
from cli.doctor.diagnostics import Finding
from cli.doctor.mcp_config import McpServer
from cli.doctor.mcp_probe import Reached, Unreached, reach
from cli.output.humanize import count

SHOWN_TOOLS = 12
LONGEST_NAME = 48
LONGEST_TEXT = 300
REMEDIES = {
    "API_KEY": "`session-cli keys create NAME --scope write` makes a key. Then set API_KEY",
    "READER_DATABASE_URL": "`session-cli db reader` makes a role that may only read. Then set READER_DATABASE_URL",
    "GITHUB_TOKEN": "Make a token at https://github.com/settings/personal-access-tokens. Then set GITHUB_TOKEN",
    "MCP_FILES_DIR": "Choose a folder without keys in it. Then set MCP_FILES_DIR",
}
"""What to do about a variable that is not set."""
STATUSES = {
    401: ("It refuses the key or token", "Make a new one, and set it where the MCP client is started."),
    403: ("The key or token does not allow it", "Use one that has the right."),
    404: ("There is no MCP server at this address", "Compare the address with that of the server."),
    421: ("It does not serve this host name", "Use the name by which the server knows itself."),
    429: ("It takes no more requests for now", "Try again later."),
}
"""What an HTTP status means, and what to do about it."""
INSTALLING = {"npx": "Install Node.js, 24 or newer, which has npx in it.", "uvx": "Install uv, which has uvx in it."}


def examine_servers(
    servers: Sequence[McpServer], environment: Mapping[str, str], *, passed: Container[str] = ()
) -> list[Finding]:
    """A finding for each server, in order. They are all asked at once. An address that a file names gets no variable of
    the environment but those that are `passed`."""
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
    """Have the client say nothing by itself: what it logs and warns of quotes strangers."""
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
        return Finding(server.name, "trouble", server.told(detail, most=LONGEST_TEXT), remedy)

    if server.fault:
        return trouble(server.fault, "Mend its entry in the configuration.")
    if server.lacks:
        told = f"{' and '.join(server.lacks)} {'is' if len(server.lacks) == 1 else 'are'} not set."
        known = [REMEDIES[name] for name in server.lacks if name in REMEDIES]
        return trouble(told, f"{known[0] if known else 'Set what is missing'} where the MCP client is started.")
    if withheld := [name for name in server.sends if name not in passed]:
        told = f"Nothing was sent: {_origin(server)} would get {' and '.join(withheld)}, and only the file names it."
        remedy = f"If you trust this address: {' '.join(f'--pass-env {name}' for name in withheld)}."
        return trouble(told, remedy)
    if server.is_secret and not may_send_secrets(server.url, plain_http_hosts(environment)):
        told = f"Nothing was sent: {_origin(server)} is not encrypted, and whoever is on the way could read the key."
        remedy = f"Use its https:// address; or, in a network that nobody else can read, set {PLAIN_HTTP_VARIABLE}."
        return trouble(told, remedy)
    try:
        reached = await reach(server, environment)
    except Unreached as error:
        return trouble(*_explain(server, error))
    return _judge(server, reached)


def _judge(server: McpServer, reached: Reached) -> Finding:
    """What an answer means."""
    names = [server.told(name, most=LONGEST_NAME) for name in reached.tools]
    listed = ", ".join(names[:SHOWN_TOOLS]) + (f" and {len(names) - SHOWN_TOOLS} more" if names[SHOWN_TOOLS:] else "")
    title = server.told(reached.title, most=LONGEST_NAME) or "It"
    detail = f"{title} has {count(len(names), 'tool')}{f': {listed}' if names else ''}."
    if reached.refusal:
        told = server.told(reached.refusal, most=LONGEST_TEXT)
        remedy = "See whether the key, token or role has the rights that this needs."
        return Finding(server.name, "trouble", f"{detail} {reached.call} was refused: {told}", remedy)
    detail += f" {reached.call} answered." if reached.call else " None is known to be harmless, so none was called."
    if reached.may_write:
        remedy = "Give it the URL of a role that may only read: `session-cli db reader` makes one."
        return Finding(server.name, "warning", f"{detail} It is connected as a role that may write.", remedy)
    if server.kind == "http" and server.headers and server.url.startswith("http:") and not is_loopback(server.url):
        remedy = "Use its https:// address."
        return Finding(server.name, "warning", f"{detail} The key goes over the network in plain text.", remedy)
    return Finding(server.name, "ok", detail)


def _explain(server: McpServer, error: Unreached) -> tuple[str, str]:
    """Why a server does not answer, and what to do about it."""
    complaint = f" It said: {error.complaint}" if error.complaint else ""
    match error.cause:
        case "not installed":
            program = Path(server.command).name
            return str(error), INSTALLING.get(program, "Install it, or mend the command in the configuration.")
        case "no connection" if is_loopback(server.url):
            return f"Nothing answers at {_origin(server)}: {error}", "Start it (`make up`), or mend its address."
        case "no connection":
            return f"{_origin(server)} cannot be reached: {error}", "See whether there is a network, and a proxy in it."
        case "too slow":
            return f"{error}{complaint}", "Try again; a program that has to be fetched takes longer the first time."
        case "refused":
            known = STATUSES.get(error.status, ("It answered with an error", "See its log."))
            return f"{known[0]} (HTTP {error.status}).", known[1]
        case "ended":
            return f"It ended without an answer.{complaint}", "Run its command by hand, and see what it says."
        case _:
            return f"It does not answer as an MCP server: {error}", "Compare the address with that of the server."


def _origin(server: McpServer) -> str:
    """Its address without what may be secret in it."""
    parts = urlsplit(server.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
