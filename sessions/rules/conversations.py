"""Rules for conversation chunks and the memories that were found in them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from models.commands import ConversationChunk, ExtractedItems
from models.errors import Conflict
from models.identity import decode_exactly, derive_id, leading_text, same_json
from models.timestamps import parse_moment
from models.vocabulary import MemoryType
from sessions.records import Chunk, Key, Memory, Record, memory_key
from sessions.rules.decision import Context, Decision, active_session, touch
from sessions.rules.memories import new_memory
from sessions.state import State

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
    """Append a chunk, and a memory for each item found in it; the same again is a no-op. Raises Conflict if other
    content has the id."""
    session = active_session(state, context.session_id)
    chunk = Chunk(
        session_id=context.session_id,
        chunk_id=command.chunk_id or "",
        content=command.content,
        format=command.format,
        start_at=_moment(command.start_time, context.at),
        end_at=_moment(command.end_time, context.at),
        participants=command.participants,
        extracted_items=Raw(msgspec.json.encode(command.extracted_items)),
        metadata=command.metadata,
        created_by=context.source,
        created_at=context.at,
    )
    memories = [
        new_memory(key=key, kind=kind, content=item, tags=[], status="open", context=context, chunk_id=chunk.chunk_id)
        for key, kind, item in extracted(command.extracted_items)
    ]
    data = {
        "chunk_id": chunk.chunk_id,
        "content_size": len(command.content),
        "extracted_items_processed": len(memories),
        "memory_keys": [memory.memory_key for memory in memories],
    }
    known = state.find(chunk.key, Chunk)
    if known is not None:
        if not _same(known, chunk):
            raise Conflict(
                "Other conversation is stored under this chunk_id.",
                code="chunk_exists",
                field="data.chunk_id",
                hint="Give this one another chunk_id, or none.",
                data={"chunk_id": known.chunk_id, "content_size": len(known.content)},
            )
        return Decision(message="This piece of conversation is stored already.", data=data | {"created": False})
    fresh = [memory for memory in memories if state.find(memory.key, Memory) is None]
    put: list[Record] = [chunk, *fresh, touch(session, context.at)]
    message = f"Stored {len(command.content):,} characters of conversation"
    message += f" and {len(memories)} items found in it." if memories else "."
    return Decision(message=message, data=data | {"created": True}, put=put)


def extracted(items: ExtractedItems) -> list[tuple[str, MemoryType, Raw]]:
    """Key, type and content of each memory that a chunk's items become; the same content has the same key."""
    found: dict[str, tuple[str, MemoryType, Raw]] = {}
    for field, kind in ITEM_TYPES.items():
        for raw in getattr(items, field):
            content = decode_exactly(raw)
            key = derive_id(kind, leading_text(content), content)
            found.setdefault(key, (key, kind, raw))
    return list(found.values())


def chunk_keys(command: ConversationChunk, session_id: str) -> list[Key]:
    """What appending the chunk may touch."""
    memories = [memory_key(session_id, key) for key, _, _ in extracted(command.extracted_items)]
    return [("conversation_chunks", session_id, command.chunk_id or ""), *memories]


def _moment(text: str | None, now: datetime) -> datetime | None:
    return None if text is None else parse_moment(text, field="start_time", now=now, zone=UTC)


def _same(one: Chunk, other: Chunk) -> bool:
    plain = ("content", "format", "start_at", "end_at", "participants")
    return (
        all(getattr(one, name) == getattr(other, name) for name in plain)
        and same_json(one.metadata, other.metadata)
        and same_json(one.extracted_items, other.extracted_items)
    )
