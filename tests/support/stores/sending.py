"""Sending commands to a store in tests."""

from __future__ import annotations

from typing import Any

from models.errors import RelayError
from sessions.backend import Backend
from sessions.reads.results import Page

SESSION = "walk"


def send(backend: Backend, command: str, session_id: str | None = SESSION, /, **data: Any) -> dict[str, Any]:
    """Return the data of a command's response, and check its message."""
    answer = backend.send(command, data, session_id=session_id)
    assert (answer["type"], answer["status"]) == ("collaborative_session_response", "success")
    assert 0 < len(answer["message"]) <= 200
    told: dict[str, Any] = answer["data"]
    return told


def refusal(backend: Backend, command: str, session_id: str | None = SESSION, /, **data: Any) -> RelayError:
    """Return the error of a refused command."""
    try:
        answer = backend.send(command, data, session_id=session_id)
    except RelayError as error:
        return error
    raise AssertionError(f"{command} was not refused: {answer}")


def pages(backend: Backend, command: str, session_id: str | None = None, /, **data: Any) -> list[Page]:
    """Return all pages of a list."""
    found = [backend.page(command, data, session_id=session_id)]
    while (cursor := found[-1].next_cursor) is not None:
        found.append(backend.page(command, {**data, "cursor": cursor}, session_id=session_id))
    return found


def items(backend: Backend, command: str, session_id: str | None = None, /, **data: Any) -> list[dict[str, Any]]:
    """Return all items of a list."""
    return [item for page in pages(backend, command, session_id, **data) for item in page.items]


def memory(backend: Backend, key: str, **more: Any) -> dict[str, Any]:
    """Return a memory of the session, at its latest or another revision."""
    found: dict[str, Any] = send(backend, "retrieve_memory", key=key, **more)["memory"]
    return found


def export(backend: Backend, session_id: str = SESSION) -> bytes:
    """Return the document of a session."""
    return b"".join(backend.export(session_id, format="json"))
