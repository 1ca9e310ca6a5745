"""The part of all sessions that a batch of commands touches, with the changes made so far. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from models.access.session_glob import matches_glob
from models.field_types import UNFINISHED
from sessions.rules.records import (
    Agent,
    Chunk,
    Key,
    Memory,
    Record,
    Session,
    Stats,
    Task,
    searched_fields,
    session_key,
    task_key,
)
from sessions.rules.task_endings import DEAD, SESSION_COMPLETED, cancel, fail_dependents

R = TypeVar("R", bound=Record)

Lane = tuple[str | None, str, int]
"""Agent, type and priority of pending tasks."""
GENERAL = "general"
"""The type of agents that claim tasks of any type, unless they name an agent."""
ONLINE_SECONDS = 120
"""An agent last seen longer ago does not count as online."""


class Changes(msgspec.Struct, kw_only=True):
    """Changes to write, in this order: the removals, the cancellations, each record at its latest, and the dependents
    of ended tasks."""

    removed: dict[Key, None] = msgspec.field(default_factory=dict)
    cancelled: dict[str, datetime] = msgspec.field(default_factory=dict)
    """Sessions whose open tasks were all cancelled, and when; tasks in `put` are as they were after that."""
    ended: dict[Key, Task] = msgspec.field(default_factory=dict)
    """Tasks that will never be completed: their dependents fail."""
    put: dict[Key, Record] = msgspec.field(default_factory=dict)
    reworded: dict[Key, bool] = msgspec.field(default_factory=dict)
    """Records in `put` with other words for the search than before, and whether there were any before."""


class LastChunk(msgspec.Struct, frozen=True, kw_only=True):
    """The chunk that was stored last in a session."""

    chunk_id: str
    before_id: str | None
    """Id of the chunk before it."""
    created_by: str
    created_at: datetime


class State:
    """Records by key. Holds only what was loaded, which the rules' `ReadSet` names."""

    def __init__(
        self,
        records: Iterable[Record] = (),
        *,
        stats: dict[str, Stats] | None = None,
        agents: Iterable[Agent] = (),
        online_types: Mapping[str, int] | None = None,
        queues: Mapping[str | None, Counter[Lane]] | None = None,
        last_chunks: dict[str, LastChunk] | None = None,
        alike: Counter[tuple[str, str]] | None = None,
    ) -> None:
        """`agents` are those that tasks name, `online_types` counts the online agents by type, and `queues` counts the
        pending tasks in the sessions that each pattern allows."""
        self._records: dict[Key, Record | None] = {record.key: record for record in records}
        self._stats = stats or {}
        self._agents = {agent.name: agent for agent in agents}
        self._online_types = online_types or {}
        self._queues: dict[str | None, Counter[Lane]] = {None: Counter(), **(queues or {})}
        self._awaited: set[Key] = set()
        self._last_chunks = last_chunks or {}
        self._alike: Counter[tuple[str, str]] = alike or Counter()
        self.changes = Changes()

    def fork(self) -> State:
        """A copy to return to if the commands that follow are rejected."""
        twin = State(stats={name: msgspec.structs.replace(item) for name, item in self._stats.items()})
        twin._records, twin._agents, twin._online_types = dict(self._records), self._agents, self._online_types
        twin._queues = {glob: queue.copy() for glob, queue in self._queues.items()}
        twin._awaited = set(self._awaited)
        twin._last_chunks, twin._alike = dict(self._last_chunks), self._alike.copy()
        twin.changes = Changes(
            removed=dict(self.changes.removed),
            cancelled=dict(self.changes.cancelled),
            ended=dict(self.changes.ended),
            put=dict(self.changes.put),
            reworded=dict(self.changes.reworded),
        )
        return twin

    def find(self, key: Key, kind: type[R]) -> R | None:
        """The record under a key, or None."""
        record = self._records.get(key)
        return record if isinstance(record, kind) else None

    def session(self, session_id: str) -> Session | None:
        """The session with this id."""
        return self.find(session_key(session_id), Session)

    def tasks(self, session_id: str) -> Iterator[Task]:
        """The tasks of a session that were loaded or created."""
        return (r for r in self._records.values() if isinstance(r, Task) and r.session_id == session_id)

    def is_awaited(self, task: Task) -> bool:
        """Check whether an earlier task depends on this one; only a batch can cause that."""
        return task.key in self._awaited

    def alike(self, session_id: str, description_hash: str) -> int:
        """Count the session's tasks that request the same."""
        return self._alike[session_id, description_hash]

    def stats(self, session_id: str) -> Stats:
        """Counts of the session's records, including the changes."""
        return self._stats.setdefault(session_id, Stats())

    def last_chunk(self, session_id: str) -> LastChunk | None:
        """The chunk that was stored last."""
        return self._last_chunks.get(session_id)

    def absorb(self, other: State) -> None:
        """Add the records of another state for sessions that this one has not loaded."""
        self._records = other._records | self._records
        self._stats = other._stats | self._stats
        self._last_chunks = other._last_chunks | self._last_chunks
        self._alike |= other._alike

    def put(self, record: Record) -> None:
        """Add a record or replace the one under its key."""
        if isinstance(record, Chunk) and self._records.get(record.key) is None:
            before = self._last_chunks.get(record.session_id)
            self._last_chunks[record.session_id] = LastChunk(
                chunk_id=record.chunk_id,
                before_id=before.chunk_id if before else None,
                created_by=record.created_by,
                created_at=record.created_at,
            )
        if isinstance(record, Task) and self._records.get(record.key) is None:
            self._alike[record.session_id, record.description_hash] += 1
        if isinstance(record, Session) and self.session(record.session_id) is None:
            self._stats[record.session_id] = Stats()
        known = self._records.get(record.key)
        self._count(known, record)
        if known is None or searched_fields(known) != searched_fields(record):
            self.changes.reworded[record.key] = known is not None
        if isinstance(record, Task):
            needed = (task_key(record.session_id, task_id) for task_id in record.depends_on)
            self._awaited.update(key for key in needed if key not in self._records)
        self._records[record.key] = record
        self.changes.put[record.key] = record
        if isinstance(record, Task) and record.status in DEAD:
            self.changes.ended[record.key] = record
            for dependent in fail_dependents([record], self.tasks(record.session_id), at=record.updated_at):
                self._apply_store_change(dependent)

    def cancel_open_tasks(self, session_id: str, at: datetime) -> None:
        """Cancel all unfinished tasks of a session, including those that were not loaded."""
        for task in [task for task in self.tasks(session_id) if task.status in UNFINISHED]:
            self._apply_store_change(cancel(task, SESSION_COMPLETED, at))
        self.stats(session_id).active_tasks = 0
        self.changes.cancelled[session_id] = at

    def _apply_store_change(self, task: Task) -> None:
        """Apply a change that the store makes itself: it is written only if the task is written anyway."""
        self._count(self._records.get(task.key), task)
        self._records[task.key] = task
        if task.key in self.changes.put:
            self.changes.put[task.key] = task

    def remove(self, record: Session | Memory) -> None:
        """Remove a record and all that belongs to it."""
        self._count(record, None)
        belongs = record.key[1:]
        for key in [key for key in self._records if key[1 : 1 + len(belongs)] == belongs and _is_below(key, record)]:
            self._records[key] = None
            self.changes.put.pop(key, None)
            self.changes.reworded.pop(key, None)
        self.changes.removed[record.key] = None
        for ended in [key for key in self.changes.ended if isinstance(record, Session) and key[1] == record.session_id]:
            del self.changes.ended[ended]
        if isinstance(record, Session):
            self._stats.pop(record.session_id, None)
            self._last_chunks.pop(record.session_id, None)
            for pair in [pair for pair in self._alike if pair[0] == record.session_id]:
                del self._alike[pair]

    def take_changes(self) -> Changes:
        """Return the changes since the last call, to be written."""
        changes, self.changes = self.changes, Changes()
        return changes

    def ahead_of(self, task: Task, session_glob: str | None) -> int:
        """Count the pending tasks, in the sessions of the pattern, that the same agent (or agents of the same type, if
        the task names none) would claim before this one."""
        return sum(
            count
            for (agent_name, task_type, priority), count in self._queues.get(session_glob, Counter()).items()
            if priority >= task.priority
            and agent_name == task.agent_name
            and (agent_name is not None or task_type == task.task_type)
        )

    def agents_online(self, task: Task, now: datetime) -> int:
        """Count the recently seen agents that would claim this task."""
        if task.agent_name is None:
            return sum(self._online_types.get(kind, 0) for kind in {task.task_type, GENERAL})
        agent = self._agents.get(task.agent_name)
        since = now - timedelta(seconds=ONLINE_SECONDS)
        return int(agent is not None and agent.last_seen_at is not None and agent.last_seen_at >= since)

    def _count(self, before: Record | None, after: Record | None) -> None:
        record = after or before
        if record is None:
            return
        for task, step in ((before, -1), (after, 1)):
            if isinstance(task, Task) and task.status == "pending":
                for glob, queue in self._queues.items():
                    if matches_glob(task.session_id, glob):
                        queue[task.agent_name, task.task_type, task.priority] += step
        stats = self._stats.get(record.session_id)
        table = record.key[0]
        if stats is None or table not in Stats.__struct_fields__:
            return
        setattr(stats, table, getattr(stats, table) + (after is not None) - (before is not None))
        stats.active_tasks += _is_active(after) - _is_active(before)


def _is_active(record: Record | None) -> bool:
    return isinstance(record, Task) and record.status in UNFINISHED


def _is_below(key: Key, record: Session | Memory) -> bool:
    return isinstance(record, Session) or key[0] in ("memories", "memory_revisions")
