"""Implements `Backend` over HTTP: changes go through the relay's inbox, reads to its endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Literal, NamedTuple

import msgspec

from agent.http.client import Client
from agent.http.command_client import send_command
from models.routes import path_to, request_to, template_of
from sessions.backend import Imported
from sessions.reads.results import Page

LARGEST_PAGE = 500
NOTES = ("method", "meaning_ready", "not_embedded")
"""Fields of an answer about the list as a whole."""
IMPORT_SECONDS = 330.0
"""The relay may take up to 300 s to import a large document."""


class _Read(NamedTuple):
    """The endpoint of a read command. `ids` are parts of its path; `field` holds the item in a command's response."""

    address: str
    ids: tuple[str, ...] = ()
    field: str | None = None


_READS = {
    "get_session_summary": _Read("read_session"),
    "retrieve_memory": _Read("read_memory", ("key",), "memory"),
    "get_task": _Read("read_task", ("task_id",), "task"),
    "get_artifact": _Read("read_artifact", ("artifact_id",), "artifact"),
}
_LISTS = {
    "list_sessions": ("read_sessions", "sessions"),
    "read_conversation": ("read_transcript", "chunks"),
    "query_memories": ("read_memories", "memories"),
    "list_tasks": ("read_tasks", "tasks"),
    "list_artifacts": ("read_artifacts", "artifacts"),
    "search": ("read_search", "hits"),
    "recent_activity": ("read_activity", "activity"),
}
"""For each list command, its endpoint and the field of its response."""


class RelayBackend:
    """The sessions of a relay that the key may access."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def send(
        self, command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
    ) -> dict[str, Any]:
        """See Backend. A read with an endpoint does not wait for the inbox."""
        if session_id is not None and delivery_id is None and (read := _READS.get(command)):
            return self._read(command, read, data, session_id)
        return send_command(self.client, command, data, session_id=session_id, delivery_id=delivery_id)

    def page(self, command: str, data: dict[str, Any], *, session_id: str | None) -> Page:
        """See Backend."""
        address, field = _LISTS[command]
        if any("," in item for value in data.values() if isinstance(value, list) for item in value):
            # A comma separates values in a query, so that only a command can carry a tag with a comma.
            answer = send_command(self.client, command, data, session_id=session_id)["data"]
            return _page(answer, answer[field])
        if "{" in template_of(address):
            answer = self.client.get(path_to(address, session_id=session_id or ""), data)
        else:
            answer = self.client.get(path_to(address), {**data, "session_id": session_id})
        return _page(answer, answer["items"])

    def events(self, session_id: str, *, after: str | None, limit: int, wait_seconds: float) -> Page:
        """See Backend."""
        query = {"after": after, "limit": limit, "wait": f"{wait_seconds:g}"}
        answer = self.client.get(path_to("read_events", session_id=session_id), query)
        return _page(answer, answer["items"])

    def export(self, session_id: str, *, format: Literal["json", "markdown"]) -> Iterator[bytes]:
        """See Backend."""
        with self.client.stream(path_to("export_session", session_id=session_id), {"format": format}) as parts:
            yield from parts

    def import_document(self, document: IO[bytes]) -> Imported:
        """See Backend. Safe to repeat: identical sessions are skipped."""
        _, answer = self.client.call(
            *request_to("import_session"), body=document, repeatable=True, silence_seconds=IMPORT_SECONDS
        )
        return msgspec.convert(answer, Imported)

    def session_ids(self) -> Iterator[str]:
        """See Backend. Reads the whole list before it yields the first id."""
        found: list[tuple[str, str]] = []
        cursor = None
        while True:
            page = self.page("list_sessions", {"limit": LARGEST_PAGE, "cursor": cursor}, session_id=None)
            found += ((item["created_at"], item["session_id"]) for item in page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
        yield from (session_id for _, session_id in sorted(set(found)))

    def close(self) -> None:
        """See Backend."""
        self.client.close()

    def _read(self, command: str, read: _Read, data: dict[str, Any], session_id: str) -> dict[str, Any]:
        ids = {name: str(data[name]) for name in read.ids}
        query = {name: value for name, value in data.items() if name not in ids}
        answer = self.client.get(path_to(read.address, session_id=session_id, **ids), query)
        content = answer if read.field is None else {read.field: answer}
        return {"command": command, "session_id": session_id, "status": "success", "message": "", "data": content}


def _page(answer: dict[str, Any], items: list[dict[str, Any]]) -> Page:
    notes = {name: answer[name] for name in NOTES if name in answer}
    truncated = answer.get("truncated", False)
    return Page(items=items, next_cursor=answer.get("next_cursor"), truncated=truncated, notes=notes)
