"""What a person's tools ask of a store as a whole: the same for Postgres, for files, and for a relay over HTTP.

Each call is complete in itself: what it changed is durable when it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Literal, Protocol

import msgspec

from sessions.reads.results import Page


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one document: it is there now, or was there already just so."""

    session_id: str
    created: bool


class Backend(Protocol):
    """Where sessions are. Each method may raise Rejected, with what is wrong, or Unavailable; then nothing was done."""

    def send(
        self, command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
    ) -> dict[str, Any]:
        """Apply a command, changing or reading, and give its response, which is a success. The same delivery id again
        has no second effect. Raises the error of a command that was refused."""

    def page(self, command: str, data: dict[str, Any], *, session_id: str | None) -> Page:
        """A page of a command that lists (list_sessions, query_memories, list_tasks, list_artifacts, search)."""

    def transcript(self, session_id: str, *, limit: int, cursor: str | None, max_characters: int) -> Page:
        """Chunks of a conversation, in order."""

    def events(self, session_id: str, *, after: str | None, limit: int, wait_seconds: float) -> Page:
        """Entries of a journal after a cursor; waits so long for one, if there is none. `next_cursor` is never None."""

    def export(self, session_id: str, *, format: Literal["json", "markdown"]) -> Iterator[bytes]:
        """A whole session as a document, part by part, of one state."""

    def import_document(self, document: IO[bytes]) -> Imported:
        """Take over a session from its JSON document with nothing changed: exported again it is the same bytes.
        Raises Conflict if another session has its id, and Invalid with the place of what is wrong."""

    def session_ids(self) -> Iterator[str]:
        """All that there are, the oldest first."""

    def close(self) -> None:
        """Let go of files and connections."""
