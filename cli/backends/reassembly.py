"""Reassembles long memories, artifacts and chunks, which backends return in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from cli.backends.pages import PIECE_CHARACTERS

if TYPE_CHECKING:
    from sessions.backend import Backend

Item = dict[str, Any]


def whole_memory(backend: Backend, item: Item) -> Item:
    """Return the memory with its full content, reading on if it was truncated."""
    return _whole(backend, "retrieve_memory", "memory", item, {"key": item["key"], "revision": item["revision"]})


def whole_artifact(backend: Backend, session_id: str, artifact_id: str, *, revision: int | None = None) -> Item:
    """Read an artifact with its full content, at its latest revision or the one given. Raises NotFound."""
    wanted: Item = {"artifact_id": artifact_id} | ({} if revision is None else {"revision": revision})
    first = {**wanted, "max_characters": PIECE_CHARACTERS}
    item = backend.send("get_artifact", first, session_id=session_id)["data"]["artifact"]
    if "revision" in item:  # Relays of earlier versions have no revisions.
        wanted["revision"] = item["revision"]
    return _whole(backend, "get_artifact", "artifact", item, wanted)


def whole_task(backend: Backend, session_id: str, task_id: str, *, wait: float = 0) -> Item:
    """Read a task with its full output, or its full description while it has none; with `wait`, when it is done or
    asks, or after that time. Raises NotFound."""
    first: Item = {"task_id": task_id, "max_characters": PIECE_CHARACTERS} | ({"wait": wait} if wait else {})
    item = backend.send("get_task", first, session_id=session_id)["data"]["task"]
    part = "output" if "output" in item else "description"
    return _whole(backend, "get_task", "task", item, {"task_id": task_id}, part=part)


def whole_chunks(pages: Iterable[list[Item]]) -> Iterator[list[Item]]:
    """Join the pieces of conversation chunks, which arrive one after another."""
    open_chunk: Item | None = None
    for page in pages:
        done: list[Item] = []
        for item in page:
            if open_chunk is not None and item.get("offset") and item["chunk_id"] == open_chunk["chunk_id"]:
                open_chunk["content"] += item["content"]
                continue
            if open_chunk is not None:
                done.append(open_chunk)
            open_chunk = {name: value for name, value in item.items() if name not in ("truncated", "next_offset")}
        if done:
            yield done
    if open_chunk is not None:
        yield [open_chunk]


def _whole(backend: Backend, command: str, field: str, item: Item, names: Item, *, part: str = "content") -> Item:
    if item.get("next_offset") is None:
        return item
    pieces = [item[part]]
    offset: int | None = item["next_offset"]
    while offset is not None:
        data = {**names, "offset": offset, "max_characters": PIECE_CHARACTERS}
        piece = backend.send(command, data, session_id=item["session_id"])["data"][field]
        pieces.append(piece[part])
        offset = piece.get("next_offset")
    content: Any = "".join(pieces)
    if item.get("encoding") == "json":
        content = msgspec.json.decode(content)
    rest = {name: value for name, value in item.items() if name not in ("truncated", "next_offset", "encoding")}
    return {**rest, part: content}
