"""Derives omitted ids from the content, so that a repeated command gets the same id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.content_ids import decode_exactly, derive_id, leading_text
from models.commands.definitions import (
    COMMANDS,
    AddArtifact,
    Batch,
    Command,
    ConversationChunk,
    CreateSession,
    StoreMemory,
)

Content = dict[str, Any]
"""A command as plain values, with its free-form JSON decoded."""

ID_FIELDS: dict[type[Command], str] = {
    StoreMemory: "key",
    ConversationChunk: "chunk_id",
    AddArtifact: "artifact_id",
}
"""The id field of each command that is derived when omitted."""


def content_of(command: Command, *, decode: Callable[[Raw], Any] = decode_exactly) -> Content:
    """Convert the command to plain values, without encoding it; `decode` decodes its free-form JSON."""
    content: Content = msgspec.to_builtins(command, enc_hook=decode)
    return content


def with_ids(command: Command, content: Content | None = None) -> Command:
    """Fill in the id if the sender omitted it, also in `content` if given."""
    field = ID_FIELDS.get(type(command))
    if field is None or getattr(command, field) is not None:
        return command
    content = content_of(command) if content is None else content
    content[field] = _derive(command, content)
    return msgspec.structs.replace(command, **{field: content[field]})


def _derive(command: Command, content: Content) -> str:
    match command:
        case StoreMemory():
            value = content["content"]
            return derive_id(command.type or "general", leading_text(value), value)
        case ConversationChunk():
            return derive_id("chunk", command.content, content)
        case AddArtifact():
            identity = [command.name, command.type, command.format, content["content"]]
            identity += [command.task_id] if command.task_id else []  # Two tasks may produce the same content.
            return derive_id("", command.name, identity)
    raise TypeError(type(command))


def derive_session(command: Command) -> str | None:
    """Derive a session_id from the title of a create_session command, alone or first in a batch; None without title."""
    if isinstance(command, Batch) and command.commands:
        item = command.commands[0]
        command = msgspec.json.decode(item.data, type=COMMANDS[item.command])
    if not isinstance(command, CreateSession) or not command.title.strip():
        return None
    return derive_id("", command.title, [command.title, command.participants, command.context])
