"""The interface of a store as a whole, for tools: the same for Postgres, for files, and for a relay over HTTP.

Each call is complete in itself: its changes are durable when it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Literal, Protocol

import msgspec

from sessions.reads.results import Page


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The result of importing one document: `created` is false if the same session was already there."""

    session_id: str
    created: bool


class Backend(Protocol):
    """Access to all sessions. Each method may raise Rejected, with the reason, or Unavailable; then nothing was
    changed."""

    def send(
        self, command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
    ) -> dict[str, Any]:
        """Apply a command, a change or a read, and return its success response. Repeating the delivery id has no second
        effect. Raises the error of a rejected command."""

    def page(self, command: str, data: dict[str, Any], *, session_id: str | None) -> Page:
        """A page of a list command, such as list_sessions, read_conversation or search."""

    def events(self, session_id: str, *, after: str | None, limit: int, wait_seconds: float) -> Page:
        """Journal entries after a cursor; waits up to `wait_seconds` for the first. `next_cursor` is never None."""

    def export(self, session_id: str, *, format: Literal["json", "markdown"]) -> Iterator[bytes]:
        """A whole session as a document, piece by piece, of one state."""

    def import_document(self, document: IO[bytes]) -> Imported:
        """Import a session from its JSON document unchanged: exporting it again returns the same bytes. Raises Conflict
        if another session has its id, and Invalid with the path of an error."""

    def session_ids(self) -> Iterator[str]:
        """All session ids, oldest first."""

    def close(self) -> None:
        """Close files and connections."""
