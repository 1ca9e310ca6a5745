"""Prints the progress of the local stack: timed steps, messages, and the closing summary."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLEAR_LINE = "\x1b[K"
"""The escape sequence that clears the rest of the line."""

QUESTION = "Where do we keep our data?"
"""It has no word of the memory that the printed commands store, and finds it by its meaning."""


class Console:
    """Writes all output of the stack. Ignores a closed stdout, so that the stack keeps running and stops cleanly."""

    def __init__(self) -> None:
        self._in_step = False

    def say(self, line: str) -> None:
        """Print a line."""
        self._write(f"\n{line}\n" if self._in_step else f"{line}\n")
        self._in_step = False

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Print a step's title at its start, and its duration at its end.

        Yields a function that shows progress, on a terminal only; it ignores an empty text.
        """
        started_at = time.monotonic()
        opening = f"{title} ... "
        rewrites = sys.stdout.isatty()

        def show(text: str) -> None:
            if text and rewrites and self._in_step:
                self._write(f"\r{opening}{text}{CLEAR_LINE}")

        self._write(opening)
        self._in_step = True
        try:
            yield show
        except BaseException:
            if self._in_step:
                self._write("\n")
                self._in_step = False
            raise
        again = (f"\r{CLEAR_LINE}{opening}" if rewrites else "") if self._in_step else f"{title} "
        self._in_step = False
        self._write(f"{again}ready ({time.monotonic() - started_at:.1f} s)\n")

    def error(self, message: str) -> None:
        """Print an error to stderr."""
        with suppress(OSError, ValueError):
            print(message, file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stdout.write(text)
            sys.stdout.flush()


def closing_block(
    *,
    relay_url: str,
    dashboard_url: str,
    dashboard_password: str,
    api_key: str,
    data_dir: Path,
    program: str = "session-cli",
    finds_stack: bool = True,
) -> str:
    """Format the closing summary: URLs, key, folders, and commands that connect a terminal and Claude Code, and that
    store a memory and read it back. `program` is session-cli, which is given the URL and the key unless it finds the
    stack by itself."""
    search = f'{program} search "{QUESTION}"'
    if not finds_stack:
        search = f"RELAY_URL={relay_url} API_KEY={api_key} {search}"
    session_id = "first-steps"
    memory = {"type": "decision", "key": "database", "content": "We picked Postgres as database."}
    create = {"command": "create_session", "data": {"title": "First steps"}}
    store = {"command": "batch", "session_id": session_id, "sync": True}
    store["data"] = {"commands": [create, {"command": "store_memory", "data": memory}]}
    read = {"command": "retrieve_memory", "session_id": session_id, "sync": True, "data": {"key": "database"}}
    return f"""
session-relay is running.

  Page       {relay_url}   (sign in with the API key)
  API key    {api_key}
  Terminal   {search}
  Claude     claude mcp add --transport http session-relay {relay_url}/mcp --header "X-API-Key: {api_key}"
  Dashboard  {dashboard_url}   (its jobs; user: admin   password: {dashboard_password})
  Data       {data_dir}
  Logs       {data_dir / "logs"}

Store your first memory:

{_curl(relay_url, api_key, store)}

Read it back:

{_curl(relay_url, api_key, read)}

Press Ctrl-C to stop.
"""


def _curl(relay_url: str, api_key: str, body: dict[str, object]) -> str:
    return (
        f"curl -s -w '\\n' {relay_url}/v1/webhook -H 'X-API-Key: {api_key}' -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body)}'"
    )
