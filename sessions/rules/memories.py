"""Rules for memories and their revisions."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from models.commands import DeleteMemory, StoreMemory
from models.errors import Conflict, NotFound
from models.identity import same_json
from models.payloads import with_ids
from models.vocabulary import MemoryStatus, MemoryType
from sessions.records import Memory, MemoryRevision, Record, memory_key, search_text
from sessions.rules.decision import Context, Decision, active_session, touch
from sessions.sentences import named
from sessions.state import State


def store_memory(state: State, command: StoreMemory, context: Context) -> Decision:
    """Store a memory. New content under a known key is a new revision, the same content none; what the sender left
    out stays as it was. Raises Conflict when `if_revision` is not the revision that is there."""
    session = active_session(state, context.session_id)
    key = command.key or ""
    known = state.find(memory_key(context.session_id, key), Memory)
    repeated = known is not None and same_json(known.content, command.content)
    there = known.revision if known else 0
    # A repeat of the write that made this revision is no conflict.
    fitting = (None, there, there - 1) if repeated else (None, there)
    if command.if_revision not in fitting:
        raise Conflict(
            f'"{key}" is at revision {there}, not {command.if_revision}.',
            code="revision_conflict",
            field="data.if_revision",
            expected=str(there),
            hint="Read it with retrieve_memory, then store again.",
            data={"key": key, "revision": there},
        )
    if known is None:
        memory = new_memory(
            key=key,
            kind=command.type or "general",
            content=command.content,
            tags=command.tags,
            status=command.status or "open",
            context=context,
        )
        put: list[Record] = [memory]
    else:
        content = known.content if repeated else command.content
        tags = command.tags or known.tags
        memory = msgspec.structs.replace(
            known,
            revision=known.revision if repeated else known.revision + 1,
            type=command.type or known.type,
            content=content,
            tags=tags,
            status=command.status or known.status,
            search_text=search_text(key, tags, content),
            created_by=known.created_by if repeated else context.source,
            chunk_id=known.chunk_id if repeated else None,
        )
        changed = memory != known
        memory = msgspec.structs.replace(memory, updated_at=max(context.at, known.updated_at))
        put = [memory] if changed else []
        if not repeated:
            put.append(_as_revision(known))
    kind = named(memory.type)
    what = kind if _is_derived(command) else f'{kind} "{key}"'
    if known is None:
        message = f"Stored the {what}."
    elif not repeated:
        message = f"Stored revision {memory.revision} of the {what}."
    else:
        message = f"Updated the {what}." if put else f"The {what} is stored already."
    if put:
        put.append(touch(session, context.at))
    data = {"key": key, "type": memory.type, "revision": memory.revision, "created": known is None}
    return Decision(message=message, data=data, put=put)


def _is_derived(command: StoreMemory) -> bool:
    """Whether the key was made from the content: then it is not fit to be read aloud."""
    return with_ids(msgspec.structs.replace(command, key=None)) == command


def delete_memory(state: State, command: DeleteMemory, context: Context) -> Decision:
    """Delete a memory with all its revisions. Raises NotFound."""
    session = active_session(state, context.session_id)
    memory = state.find(memory_key(context.session_id, command.key), Memory)
    if memory is None:
        raise NotFound(f'There is no memory "{command.key}" here.', code="memory_not_found", field="data.key")
    return Decision(
        message=f'Deleted the memory "{command.key}".',
        data={"key": command.key, "deleted": True},
        removed=[memory],
        put=[touch(session, context.at)],
    )


def new_memory(
    *,
    key: str,
    kind: MemoryType,
    content: Raw,
    tags: list[str],
    status: MemoryStatus,
    context: Context,
    chunk_id: str | None = None,
) -> Memory:
    """A memory at its first revision."""
    return Memory(
        session_id=context.session_id,
        memory_key=key,
        revision=1,
        type=kind,
        content=content,
        tags=tags,
        status=status,
        chunk_id=chunk_id,
        created_by=context.source,
        created_at=context.at,
        updated_at=context.at,
        search_text=search_text(key, tags, content),
    )


def _as_revision(memory: Memory) -> MemoryRevision:
    return MemoryRevision(**{name: getattr(memory, name) for name in Memory.__struct_fields__})
