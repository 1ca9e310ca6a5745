"""Rules for memories and their revisions: each change creates a revision, and restating a closed memory reopens it.

What a memory's content says is due is due, unless the sender says otherwise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw

from models.commands.content_ids import may_be_derived, same_json
from models.commands.definitions import OMITTED, DeleteMemory, StoreMemory
from models.commands.derived_ids import with_ids
from models.commands.responses import type_name
from models.due import due_in, parse_due
from models.errors import Conflict, NotFound
from models.field_types import MemoryStatus, MemoryType
from models.timestamps import is_relative
from sessions.rules.decision import Context, Decision, active_session, is_just_repeated, touch
from sessions.rules.records import Memory, MemoryRevision, Record, memory_key, shown_status
from sessions.rules.state import State

MemoryOutcome = Literal["created", "repeat", "restated", "revised", "reopened"]
"""`repeat`: nothing changed. `restated`: said again while it was open, so only its time changed."""


class Stored(NamedTuple):
    """The result of storing a memory."""

    memory: Memory
    outcome: MemoryOutcome
    put: list[Record]


def store_memory(state: State, command: StoreMemory, context: Context) -> Decision:
    """Store a memory. A change under a known key creates a revision. Fields that the sender omits keep their values,
    but restating a closed memory reopens it. Raises Conflict when `if_revision` is not the current revision, and
    NotFound for a change without content if the key is unknown."""
    session = active_session(state, context.session_id)
    key = command.key or ""
    known = state.find(memory_key(context.session_id, key), Memory)
    if known is None and command.content is OMITTED:
        raise _unknown(key, hint="list_memories shows the memories of a session. To store a new one, send its content.")
    is_update = known is not None and command.is_update
    is_derived = known is not None and not is_update and _is_derived(command)
    if known is None:
        memory = new_memory(
            key=key,
            kind=command.type or "general",
            content=command.content,
            tags=command.tags or [],
            status=command.status or "open",
            due=_due(command, None, context),
            context=context,
            said_at=context.at,
        )
        stored = Stored(memory, "created", [memory])
    else:
        wanted = msgspec.structs.replace(
            known,
            type=command.type or known.type,
            content=known.content if is_update else command.content,
            tags=known.tags if command.tags is None else command.tags,
            status=command.status or known.status,
        )
        is_restated = command.status is None and command.if_revision is None and not is_update
        if is_restated and (is_derived or _is_same(known, wanted)):
            wanted = msgspec.structs.replace(wanted, status="open")
        wanted = msgspec.structs.replace(wanted, due=_due(command, known, context))
        stored = revise(
            known,
            wanted,
            context=context,
            said_at=context.at,
            chunk_id=None,
            is_statement=is_derived and command.if_revision is None,
        )
    _require_revision(command, known, stored, context)
    put = [*stored.put, touch(session, context.at)] if stored.put else []
    memory = stored.memory
    data = {"key": key, "type": memory.type, "revision": memory.revision, "created": known is None}
    if memory.due is not None:
        data["due"] = memory.due
    if status := shown_status(memory.type, memory.status):
        data["status"] = status
    if stored.outcome not in ("created", "repeat"):
        data["outcome"] = stored.outcome
    is_derived = is_derived or (known is None and _is_derived(command))
    noun = type_name(memory.type) if is_derived else f'{type_name(memory.type)} "{key}"'
    return Decision(message=_message(stored, known, noun), data=data, put=put)


def revise(
    known: Memory,
    wanted: Memory,
    *,
    context: Context,
    said_at: datetime,
    chunk_id: str | None,
    is_statement: bool,
) -> Stored:
    """Revise the memory if anything differs. A statement that changes nothing is a repeat if its source has just made
    it; otherwise it updates the memory's time."""
    said_at = max(said_at, known.updated_at)
    if _is_same(known, wanted) and known.status == wanted.status:
        is_repeat = is_just_repeated(context, source=known.created_by, at=known.updated_at)
        if not is_statement or known.status != "open" or is_repeat:
            return Stored(known, "repeat", [])
        restated = msgspec.structs.replace(known, updated_at=said_at)
        return Stored(restated, "restated", [restated])
    is_same_content = same_json(known.content, wanted.content)
    revised = msgspec.structs.replace(
        wanted,
        revision=known.revision + 1,
        content=known.content if is_same_content else wanted.content,
        created_by=context.source,
        chunk_id=chunk_id or (known.chunk_id if is_same_content else None),
        updated_at=said_at,
    )
    is_reopened = known.status != "open" and wanted.status == "open"
    return Stored(revised, "reopened" if is_reopened else "revised", [revised, _as_revision(known)])


def delete_memory(state: State, command: DeleteMemory, context: Context) -> Decision:
    """Delete a memory and all its revisions. Raises NotFound."""
    session = active_session(state, context.session_id)
    memory = state.find(memory_key(context.session_id, command.key), Memory)
    if memory is None:
        raise _unknown(command.key, hint="list_memories shows the memories of a session.")
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
    said_at: datetime,
    due: str | None = None,
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
        created_at=said_at,
        updated_at=said_at,
        due=due,
    )


def due_of(content: Raw, known: Memory | None = None) -> str | None:
    """When a memory with this content is due: what new content says, else what is known of it."""
    if known is not None and same_json(known.content, content):
        return known.due
    return due_in(content) or (known.due if known else None)


def _due(command: StoreMemory, known: Memory | None, context: Context) -> str | None:
    """When the memory is due. A repeated delay such as `in 2h` is counted from its first delivery."""
    if command.due is None:
        return known.due if known and command.is_update else due_of(command.content, known)
    if not command.due:
        return None
    is_delay = known is not None and known.due is not None and is_relative(command.due)
    if known and is_delay and is_just_repeated(context, source=known.created_by, at=known.updated_at):
        return known.due
    return parse_due(command.due, field="data.due", now=context.at)


def _unknown(key: str, *, hint: str) -> NotFound:
    return NotFound(f"Memory {key!r} not found in this session.", code="memory_not_found", field="data.key", hint=hint)


def _require_revision(command: StoreMemory, known: Memory | None, stored: Stored, context: Context) -> None:
    """Raise Conflict unless the memory is at the revision that the sender has seen. Repeating the write that created
    the latest revision is allowed: it changes nothing."""
    there = known.revision if known else 0
    fitting = {None, there}
    if known is not None and stored.outcome == "repeat" and known.created_by == context.source:
        fitting.add(there - 1)
    if command.if_revision not in fitting:
        raise Conflict(
            f'"{command.key}" is at revision {there}, not {command.if_revision}.',
            code="revision_conflict",
            field="data.if_revision",
            expected=str(there),
            hint="Read the current revision with retrieve_memory, then store again.",
            data={"key": command.key, "revision": there},
        )


def _message(stored: Stored, known: Memory | None, noun: str) -> str:
    memory = stored.memory
    state = "" if memory.status == "open" else f"; it is {memory.status}"
    match stored.outcome:
        case "created":
            return f"Stored the {noun}."
        case "repeat":
            return f"The {noun} is already stored{state}."
        case "restated":
            return f"The {noun} was already stored; its time was updated."
        case "reopened":
            return f"Reopened the {noun}, which was {known.status if known else 'closed'}."
        case "revised":
            return f"Stored revision {memory.revision} of the {noun}{state}."


def _is_derived(command: StoreMemory) -> bool:
    """Check whether the key was derived from the content. Such a key is unfit to read aloud, and the command is a
    statement rather than a change of a memory that the sender knows."""
    return may_be_derived(command.key or "") and with_ids(msgspec.structs.replace(command, key=None)) == command


def _is_same(known: Memory, wanted: Memory) -> bool:
    """Compare all but the status."""
    plain = ("type", "tags", "due")
    is_same = all(getattr(known, name) == getattr(wanted, name) for name in plain)
    return is_same and same_json(known.content, wanted.content)


def _as_revision(memory: Memory) -> MemoryRevision:
    return MemoryRevision(**{name: getattr(memory, name) for name in Memory.__struct_fields__})
