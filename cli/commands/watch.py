"""Follows the events of a session."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from cli.command_declaration import command, session_argument
from cli.context import CliContext
from cli.output.table_columns import EVENT

WAIT_SECONDS = 25.0
"""The length of one long poll. Proxies cut connections that are idle for 30 s."""
PAGE = 500
LONGEST_PAUSE_SECONDS = 15.0


@command("watch", EVENT)
@session_argument()
@click.option(
    "--last", type=click.IntRange(min=0), default=10, show_default=True, help="Number of past events to show first."
)
@click.option("--after", metavar="CURSOR", help="Start after the event with this `cursor`.")
def watch(tool: CliContext, session_id: str, last: int, after: str | None) -> None:
    """Follow a session's events, until Ctrl-C. With --json, one event per line."""
    past: deque[dict[str, Any]] = deque(maxlen=None if after else last)
    cursor = after
    while True:
        page = tool.backend.events(session_id, after=cursor, limit=PAGE, wait_seconds=0)
        past += page.items
        cursor = page.next_cursor
        if not page.items:
            break
    is_first = True
    for event in past:
        tool.terminal.event(event, EVENT, with_heading=is_first)
        is_first = False
    if tool.terminal.is_terminal:
        tool.terminal.note("Waiting for events. Press Ctrl-C to stop.")
    for event in follow(tool, session_id, cursor):
        tool.terminal.event(event, EVENT, with_heading=is_first)
        is_first = False


def latest_cursor(tool: CliContext, session_id: str) -> str | None:
    """Return the cursor after the session's last event."""
    cursor: str | None = None
    while True:
        page = tool.backend.events(session_id, after=cursor, limit=PAGE, wait_seconds=0)
        cursor = page.next_cursor
        if not page.items:
            return cursor


def follow(tool: CliContext, session_id: str, cursor: str | None) -> Iterator[dict[str, Any]]:
    """Yield events after a cursor as they come, without an end."""
    from models.errors import TooManyRequests, Unavailable

    pause = 1.0
    while True:
        try:
            page = tool.backend.events(session_id, after=cursor, limit=PAGE, wait_seconds=WAIT_SECONDS)
        except (Unavailable, TooManyRequests) as error:
            if not error.retryable:
                raise
            tool.terminal.warn(f"{error.message} Retrying in {pause:g} s.")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            continue
        pause = 1.0
        yield from page.items
        cursor = page.next_cursor
