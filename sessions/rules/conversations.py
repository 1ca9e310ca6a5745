"""Rules for conversation chunks and the memories extracted from them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from models.commands.content_ids import decode_exactly, derive_id, leading_text, may_be_derived, same_json
from models.commands.definitions import ConversationChunk, ExtractedItems
from models.commands.derived_ids import with_ids
from models.errors import Conflict
from models.field_types import MemoryType
from models.timestamps import is_relative, parse_moment
from sessions.rules.decision import Context, Decision, active_session, is_just_repeated, touch
from sessions.rules.memories import Stored, due_of, new_memory, revise
from sessions.rules.records import Chunk, Key, Memory, Record, memory_key
from sessions.rules.state import LastChunk, State

ITEM_TYPES: dict[str, MemoryType] = {
    "ideas": "idea",
    "decisions": "decision",
    "questions": "question",
    "action_items": "action_item",
    "facts": "fact",
    "preferences": "preference",
    "risks": "risk",
    "notes": "note",
}


def append_chunk(state: State, command: ConversationChunk, context: Context) -> Decision:
    """Append a chunk, and a memory for each item extracted from it; a closed memory is reopened. Repeating it under the
    sender's own id is a no-op; without an id it is appended as said again. Raises Conflict if other content has the
    id."""
    session = active_session(state, context.session_id)
    chunk = Chunk(
        session_id=context.session_id,
        chunk_id=command.chunk_id or "",
        content=command.content,
        format=command.format,
        start_at=_moment(command.start_time, context.at, "start_time"),
        end_at=_moment(command.end_time, context.at, "end_time"),
        participants=command.participants,
        extracted_items=Raw(msgspec.json.encode(command.extracted_items)),
        metadata=command.metadata,
        created_by=context.source,
        created_at=context.at,
    )
    known = state.find(chunk.key, Chunk)
    is_said_again = known is not None and _is_derived(command)
    is_repeat = known is not None and not is_said_again
    if is_said_again:
        chunk_id, is_repeat = _id_when_said_again(command, state.last_chunk(context.session_id), context)
        chunk = msgspec.structs.replace(chunk, chunk_id=chunk_id)
    items = [_store(state, item, chunk, context) for item in extracted(command.extracted_items)]
    data: dict[str, object] = {
        "chunk_id": chunk.chunk_id,
        "content_size": len(command.content),
        "extracted_items_processed": len(items),
        "memory_keys": [item.memory.memory_key for item in items],
    }
    if is_repeat:
        if known and not is_said_again and not _is_same(known, _with_times_of(known, chunk, command)):
            raise Conflict(
                "Another chunk with different content already has this chunk_id.",
                code="chunk_exists",
                field="data.chunk_id",
                hint="Choose another chunk_id, or omit it to have one generated.",
                data={"chunk_id": known.chunk_id, "content_size": len(known.content)},
            )
        data["created"] = False
        return Decision(message="This part of the conversation is already stored.", data=data)
    reopened = [item.memory.memory_key for item in items if item.outcome == "reopened"]
    if reopened:
        data["reopened"] = reopened
    put: list[Record] = [chunk, *(record for item in items for record in item.put), touch(session, context.at)]
    message = f"Stored {len(command.content):,} characters of conversation"
    message += f" and {len(items)} item{'s' if len(items) > 1 else ''} extracted from it" if items else ""
    message += f", {len(reopened)} of them reopened." if reopened else "."
    return Decision(message=message, data=data | {"created": True}, put=put)


def extracted(items: ExtractedItems) -> list[tuple[str, MemoryType, Raw]]:
    """Key, type and content of each memory that a chunk's items become; equal content has equal keys."""
    found: dict[str, tuple[str, MemoryType, Raw]] = {}
    for field, kind in ITEM_TYPES.items():
        for raw in getattr(items, field):
            content = decode_exactly(raw)
            key = derive_id(kind, leading_text(content), content)
            found.setdefault(key, (key, kind, raw))
    return list(found.values())


def chunk_keys(command: ConversationChunk, session_id: str) -> list[Key]:
    """Keys of the records that appending the chunk may change."""
    memories = [memory_key(session_id, key) for key, _, _ in extracted(command.extracted_items)]
    return [("conversation_chunks", session_id, command.chunk_id or ""), *memories]


def _store(state: State, item: tuple[str, MemoryType, Raw], chunk: Chunk, context: Context) -> Stored:
    """Store an extracted item as a memory: create it, or restate it unless it was changed after the chunk was said."""
    key, kind, content = item
    said_at = chunk.start_at or context.at
    known = state.find(memory_key(context.session_id, key), Memory)
    if known is None:
        memory = new_memory(
            key=key,
            kind=kind,
            content=content,
            tags=[],
            status="open",
            due=due_of(content),
            context=context,
            chunk_id=chunk.chunk_id,
            said_at=said_at,
        )
        return Stored(memory, "created", [memory])
    ended_at = chunk.end_at or said_at
    if ended_at < known.updated_at:
        return Stored(known, "repeat", [])
    wanted = msgspec.structs.replace(known, content=content, status="open", due=due_of(content, known))
    return revise(known, wanted, context=context, said_at=ended_at, chunk_id=chunk.chunk_id, is_statement=True)


def _id_when_said_again(command: ConversationChunk, last: LastChunk | None, context: Context) -> tuple[str, bool]:
    """The chunk id for content that was sent before, and whether this is a retry. A retry has the id of the chunk that
    it repeats; otherwise the id also depends on the preceding chunk."""
    first = command.chunk_id or ""

    def after(chunk_id: str | None) -> str:
        return derive_id("chunk", command.content, [first, chunk_id])

    if last is None:
        return after(None), False
    is_last = last.chunk_id in (first, after(last.before_id))
    if is_last and is_just_repeated(context, source=last.created_by, at=last.created_at):
        return last.chunk_id, True
    return after(last.chunk_id), False


def _is_derived(command: ConversationChunk) -> bool:
    return (
        may_be_derived(command.chunk_id or "") and with_ids(msgspec.structs.replace(command, chunk_id=None)) == command
    )


def _moment(text: str | None, now: datetime, field: str) -> datetime | None:
    return None if text is None else parse_moment(text, field=field, now=now, zone=UTC)


def _with_times_of(known: Chunk, chunk: Chunk, command: ConversationChunk) -> Chunk:
    """The chunk with relative times such as `2h` as they were resolved when it was first stored."""
    relative_times = {
        at: getattr(known, at)
        for text, at in ((command.start_time, "start_at"), (command.end_time, "end_at"))
        if text is not None and is_relative(text)
    }
    return msgspec.structs.replace(chunk, **relative_times)


def _is_same(one: Chunk, other: Chunk) -> bool:
    plain = ("content", "format", "start_at", "end_at", "participants")
    return (
        all(getattr(one, name) == getattr(other, name) for name in plain)
        and same_json(one.metadata, other.metadata)
        and same_json(one.extracted_items, other.extracted_items)
    )
