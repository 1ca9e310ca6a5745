"""Ids that senders leave out: made from the content, so that a repeat meets the first."""

from __future__ import annotations

from typing import Any

import msgspec

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
"""A command as plain values, its free JSON decoded."""

ID_FIELDS: dict[type[Command], str] = {
    StoreMemory: "key",
    ConversationChunk: "chunk_id",
    AddArtifact: "artifact_id",
}
"""The field of the id that is derived when it is left out."""


def content_of(command: Command) -> Content:
    """Return the command as plain values, without encoding it."""
    content: Content = msgspec.to_builtins(command, enc_hook=decode_exactly)
    return content


def with_ids(command: Command, content: Content | None = None) -> Command:
    """Add the id that the sender left out; also to `content`, if that is known."""
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
            identity += [command.task_id] if command.task_id else []  # Two tasks may make the same.
            return derive_id("", command.name, identity)
    raise TypeError(type(command))


def derive_session(command: Command) -> str | None:
    """Derive the id that a title gives to a new session, also as the first command of a batch. None without a title."""
    if isinstance(command, Batch) and command.commands:
        item = command.commands[0]
        command = msgspec.json.decode(item.data, type=COMMANDS[item.command])
    if not isinstance(command, CreateSession) or not command.title.strip():
        return None
    return derive_id("", command.title, [command.title, command.participants, command.context])
