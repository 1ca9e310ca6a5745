"""Reaches the relay in other ways: any request, and its page."""

from __future__ import annotations

import re
from typing import Any

import click

from cli.command_declaration import argument, command, session_argument
from cli.context import CliContext
from cli.output.table_columns import Column, OutputSchema

_ADDRESS = OutputSchema((Column("url", "Page"),), id_path="url")
_RESPONSE = OutputSchema((Column("status"), Column("body")), id_path="status")
_PATH = re.compile(r"/[!-\[\]-~]*")
"""A path with a query: printable, without spaces and backslashes."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")


@command("open", _ADDRESS)
@session_argument("[ID]", required=False)
@click.option("--url", "is_printed", is_flag=True, help="Only print the URL.")
def open_page(tool: CliContext, session_id: str | None, is_printed: bool) -> None:
    """Open the relay's page, or a session's, in a browser. In a pipe, prints the URL."""
    from models.routes import path_to

    path = path_to("page_session", session_id=session_id) if session_id else "/"
    url = f"{tool.client.url}{path}"
    if session_id is not None:  # The page would be an error that says less.
        tool.backend.send("get_session_summary", {}, session_id=session_id)
    if tool.terminal.as_json:
        tool.terminal.item({"url": url}, _ADDRESS)
    elif is_printed or not tool.terminal.is_terminal:
        tool.terminal.line(url)
    else:
        import webbrowser

        tool.terminal.note(f"Opening {url}")
        if not webbrowser.open(url):
            tool.terminal.warn("No browser was found. Open the URL yourself.")


@command("api", _RESPONSE)
@argument("method", metavar="METHOD")
@argument("path", metavar="PATH")
@click.option("--data", "-d", metavar="JSON", help="Body: an object; @FILE or - to read it.")
def api(tool: CliContext, method: str, path: str, data: str | None) -> None:
    """Send any request with your key. Prints the body of the response, also that of an error; with --json, its status
    and body."""
    from agent.http.error_responses import error_of
    from cli.files import read_json

    verb = method.upper()
    if verb not in METHODS:
        raise click.UsageError(f"Invalid method {method!r}: expected one of {', '.join(METHODS)}.")
    if not _PATH.fullmatch(path):
        raise click.UsageError(f"Invalid path {path!r}: expected one like /v1/sessions?limit=5, without the host.")
    body = None if data is None else read_json(data, option="--data")
    status, headers, content = tool.client.exchange(verb, path, body=body)
    kind = headers.get("content-type", "")
    if tool.terminal.as_json:
        tool.terminal.item({"status": status, "body": _decoded(content)}, _RESPONSE)
    elif tool.terminal.is_terminal and "json" in kind:
        tool.terminal.document([_indented(content)])
    elif content:
        tool.terminal.document([content])
    if status >= 400:
        raise error_of(status, content, headers)


def _decoded(content: bytes) -> Any:
    """Return JSON as it is written, and any other body as text."""
    import msgspec

    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return content.decode(errors="replace")
    return msgspec.Raw(content)


def _indented(content: bytes) -> bytes:
    import msgspec

    try:
        return msgspec.json.format(content, indent=2)
    except msgspec.DecodeError:
        return content
