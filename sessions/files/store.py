"""The JSON store for one command: the session is changed in memory, and the caller writes it once."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec

from models.commands.agent_commands import AGENT_COMMANDS
from models.commands.definitions import COMMANDS, GetTask, ReadCommand
from models.field_types import UNFINISHED
from models.queue.inbox import Entry
from sessions.documents.document import TaskItem, event_item_of, item_of, records, session_record
from sessions.files.reads import read
from sessions.files.row_views import count_contents, last_question
from sessions.files.session_file import SavedDelivery, SessionFile
from sessions.files.session_reader import SessionReader
from sessions.files.store_folder import Folder
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import ReadResult
from sessions.responses.task_updates import (
    ELSEWHERE_FOR,
    ELSEWHERE_TASKS,
    LOOKED_AT,
    SEEN_FOR,
    SETTLED,
    SHOWN_FOR,
    UNCLAIMED_AFTER,
    Elsewhere,
    Listener,
    TaskUpdate,
    choose,
    describe_elsewhere,
    describe_update,
    is_shown,
    seen_after,
)
from sessions.rules.dispatch import ReadSet
from sessions.rules.event_log import Delivery, Event, PriorDelivery, Said
from sessions.rules.lifecycle import OPEN_TASKS
from sessions.rules.records import (
    Artifact,
    ArtifactRevision,
    Chunk,
    Key,
    Memory,
    MemoryRevision,
    Record,
    Session,
    Stats,
    Task,
)
from sessions.rules.state import Changes, Lane, LastChunk, State
from sessions.rules.task_endings import DEAD, SESSION_COMPLETED, cancel, event_of_dependent, fail_dependents
from sessions.rules.tasks import description_hash


class FilesStore:
    """Implements `sessions.commands.store.Store` for one session, which the caller has locked, or for none."""

    def __init__(self, folder: Folder, contents: SessionFile | None) -> None:
        self._folder = folder
        self.contents = contents
        self.is_changed = False

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Roll back the writes of the block if it raises."""
        before = (self.contents and self.contents.copy(), self.is_changed)
        try:
            yield
        except BaseException:
            self.contents, self.is_changed = before
            raise

    def known_deliveries(self, entries: Sequence[Entry]) -> dict[tuple[str, str], PriorDelivery]:
        """Return earlier decisions on these entries in this session, by source and delivery id."""
        known = self.contents.deliveries if self.contents else {}
        identities = [(entry.source, entry.delivery_id) for entry in entries]
        return {
            identity: PriorDelivery(
                hash=known[identity].hash,
                status=known[identity].status,
                http_status=known[identity].http_status,
                response=known[identity].response,
                accepted_at=known[identity].decided_at,
            )
            for identity in identities
            if identity in known
        }

    def last_said(self, entries: Sequence[Entry]) -> dict[str, Said]:
        """Return, per session, the last change, if it has the content of one of these entries."""
        contents = self.contents
        if contents is None:
            return {}
        changes = (
            contents.deliveries.get((event.source, event.delivery_id))
            for event in reversed(contents.events)
            if event.status == "applied" and event.delivery_id and event.event not in AGENT_COMMANDS
        )
        last = next(changes, None)
        if last is None or last.response is None:
            return {}
        if not any(entry.hash == last.hash for entry in entries):
            return {}
        said = Said(source=last.source, hash=last.hash, at=last.decided_at, response=last.response)
        return {contents.session_id: said}

    def load(self, wanted: ReadSet) -> State:
        """Load the requested records that exist."""
        contents = self.contents
        if contents is None or contents.session is None:
            return State(queues={glob: self._queue(glob) for glob in wanted.recipients})
        found = [record for key in wanted.keys for record in _find(contents, key)]
        known = {record.key for record in found}
        if wanted.open_tasks:
            still_open = [task for task in contents.tasks.values() if task.status in UNFINISHED][:OPEN_TASKS]
            found += [r for task in still_open for r in records(task, contents.session_id) if r.key not in known]
            known = {record.key for record in found}
        alike: Counter[tuple[str, str]] = Counter()
        for task in contents.tasks.values() if wanted.descriptions else ():
            digest = contents.session_id, description_hash(task.agent_name, task.description)
            alike[digest] += 1
            if digest in wanted.descriptions and task.finished_at is None:
                found += [record for record in records(task, contents.session_id) if record.key not in known]
        stats = {contents.session_id: Stats(**count_contents(contents))} if wanted.stats else {}
        return State(
            found,
            stats=stats,
            queues={glob: self._queue(glob) for glob in wanted.recipients},
            last_chunks=_last_chunks(contents),
            alike=alike,
        )

    def write(self, changes: Changes, deliveries: Sequence[Delivery], events: Sequence[Event]) -> None:
        """Apply the writes in memory. Deliveries of reads and failed deliveries are not kept."""
        contents = self.contents
        assert contents is not None or not (changes.removed or changes.put or events)
        if contents is None:
            return
        for key in changes.removed:
            if key[0] == "sessions":
                contents = self.contents = contents.emptied()
            else:
                contents.memories.pop(key[2], None)
            self.is_changed = True
        if contents.session_id in changes.cancelled:
            _cancel_open_tasks(contents, changes.cancelled[contents.session_id])
        for record in changes.put.values():
            _put(contents, record)
        failed = [item for ended in changes.ended.values() for item in _fail_dependents(contents, ended)]
        for delivery in deliveries:
            if not COMMANDS[delivery.command].is_read and delivery.status != "failed":
                names = SavedDelivery.__struct_fields__
                saved = SavedDelivery(**{name: getattr(delivery, name) for name in names})
                contents.deliveries[delivery.source, delivery.delivery_id] = saved
                self.is_changed = True
        followed = [_event_of_dependent(contents.session_id, item) for item in failed]
        contents.events += [event_item_of(event) for event in (*events, *followed)]
        self.is_changed = self.is_changed or bool(changes.put or events)

    def holds_task(self, source: str, session_id: str) -> bool:
        """Return False: tasks cannot be claimed in the JSON store."""
        return False

    def record_conflict(self, entry: Entry, at: datetime) -> None:
        """Do nothing: the JSON store does not show conflicts."""

    def set_apart(self, entry: Entry, accepted_at: datetime) -> None:
        """Do nothing: the JSON store does not derive delivery ids from content."""

    def parked_by(self, source: str) -> tuple[int, int]:
        """Return zeros: the JSON store receives no webhooks to park."""
        return 0, 0

    def parked_in(self, session_id: str) -> int:
        """Return zero: the JSON store receives no webhooks to park."""
        return 0

    def read(self, command: ReadCommand, read_scope: ReadScope, *, seconds: float | None = None) -> ReadResult:
        """Run a read, which sees earlier writes. Ignores the time limit, since nothing else waits for the read. Raises
        Rejected."""
        answer = read(SessionReader(self._folder, self.contents), command, read_scope=read_scope)
        if isinstance(command, GetTask) and self.contents:
            self._mark_seen(self.contents, command.task_id, read_scope.source or "")
        return answer

    def nearest_sessions(self, session_id: str, *, session_glob: str | None) -> dict[str, str]:
        """Return up to three sessions with a similar id or title, with their titles."""
        return SessionReader(self._folder, self.contents).similar_sessions(session_id, session_glob=session_glob)

    def updates(self, listeners: Collection[Listener], now: datetime) -> dict[Listener, list[dict[str, Any]]]:
        """Return, per listener, updates on its session's tasks and on tasks that it delegated elsewhere."""
        updates: dict[Listener, list[dict[str, Any]]] = {}
        for listener in listeners:
            contents = SessionReader(self._folder, self.contents).find(listener.session_id)
            news = _news(contents, listener.source, now) if contents else []
            news += describe_elsewhere(self._elsewhere(listener.source, now), listener)
            if news:
                updates[listener] = news
        return updates

    def _elsewhere(self, source: str, now: datetime) -> list[Elsewhere]:
        since = now - ELSEWHERE_FOR
        found = [
            (task, session)
            for session, tasks in SessionReader(self._folder, self.contents).tasks_since(since)
            for task in tasks
            if task.created_by == source and task.status in SETTLED and task.updated_at > since
            if not (is_shown(task.shown_at, task.updated_at) and source in task.seen_by)
        ]
        found = heapq.nlargest(ELSEWHERE_TASKS, found, key=lambda item: item[0].updated_at)
        counts = Counter((session.session_id, session.title, task.status) for task, session in found)
        latest = {(session.session_id, task.status): task.updated_at for task, session in reversed(found)}
        return [
            Elsewhere(
                session_id=session_id,
                title=title,
                status=status,
                count=count,
                updated_at=latest[session_id, status],
            )
            for (session_id, title, status), count in counts.items()
        ]

    def _mark_seen(self, contents: SessionFile, task_id: str, source: str) -> None:
        task = contents.tasks[task_id]
        seen_by = seen_after(task.seen_by, source, shown_at=task.shown_at, updated_at=task.updated_at)
        if seen_by is not None:
            contents.tasks[task_id] = msgspec.structs.replace(task, shown_at=task.updated_at, seen_by=seen_by)
            self.is_changed = True

    def _queue(self, session_glob: str | None) -> Counter[Lane]:
        """Count the pending tasks in all sessions that the pattern allows."""
        read_scope = ReadScope(session_id=None, session_glob=session_glob, now=datetime.now(UTC))
        return Counter(
            (task.agent_name, task.task_type, task.priority)
            for contents in SessionReader(self._folder, self.contents).within(read_scope)
            for task in contents.tasks.values()
            if task.status == "pending"
        )


def _last_chunks(contents: SessionFile) -> dict[str, LastChunk]:
    last, before, *_ = *islice(reversed(contents.chunks.values()), 2), None, None
    if last is None:
        return {}
    chunk = LastChunk(
        chunk_id=last.chunk_id,
        before_id=before.chunk_id if before else None,
        created_by=last.created_by,
        created_at=last.created_at,
    )
    return {contents.session_id: chunk}


def _find(contents: SessionFile, key: Key) -> Iterator[Record]:
    table, _, *rest = key
    if table == "sessions" and contents.session:
        yield session_record(contents.session)
        return
    known: dict[str, dict[str, Any]] = {
        "conversation_chunks": contents.chunks,
        "memories": contents.memories,
        "tasks": contents.tasks,
        "artifacts": contents.artifacts,
    }
    item = known.get(table, {}).get(rest[0]) if rest else None
    if item is not None:
        yield next(records(item, contents.session_id))


def _fail_dependents(contents: SessionFile, ended: Task) -> list[TaskItem]:
    item = contents.tasks[ended.task_id]
    dead = [item] if item.status in DEAD else []
    failed = fail_dependents(dead, contents.tasks.values(), at=ended.updated_at)
    contents.tasks |= {task.task_id: task for task in failed}
    return failed


def _event_of_dependent(session_id: str, task: TaskItem) -> Event:
    return event_of_dependent(
        session_id=session_id,
        task_id=task.task_id,
        titled=task.titled,
        attempt=task.attempt,
        error=task.error,
        at=task.updated_at,
    )


def _cancel_open_tasks(contents: SessionFile, at: datetime) -> None:
    for task in list(contents.tasks.values()):
        if task.status in UNFINISHED:
            contents.tasks[task.task_id] = cancel(task, SESSION_COMPLETED, at)


def _put(contents: SessionFile, record: Record) -> None:
    match record:
        case Session():
            contents.session = item_of(record)
        case Chunk():
            contents.number("chunks", record.chunk_id)
            contents.chunks[record.chunk_id] = item_of(record)
        case MemoryRevision():
            memory = contents.memories[record.memory_key]
            revisions = [*memory.revisions, item_of(record)]
            revisions.sort(key=lambda revision: revision.revision)
            contents.memories[record.memory_key] = msgspec.structs.replace(memory, revisions=revisions)
        case Memory():
            known = contents.memories.get(record.memory_key)
            contents.memories[record.memory_key] = item_of(record, revisions=known.revisions if known else ())
        case Task():
            contents.number("tasks", record.task_id)
            contents.tasks[record.task_id] = item_of(record)
        case ArtifactRevision():
            contents.artifact_revisions[record.artifact_id, record.revision] = item_of(record)
        case Artifact():
            contents.renumber("artifacts", record.artifact_id)
            contents.artifacts.pop(record.artifact_id, None)
            contents.artifacts[record.artifact_id] = item_of(record)


def _news(contents: SessionFile, source: str, now: datetime) -> list[dict[str, Any]]:
    positions = contents.positions["tasks"]
    unseen: list[TaskUpdate] = []
    shown: list[TaskUpdate] = []
    for task in contents.tasks.values():
        is_known = is_shown(task.shown_at, task.updated_at)
        seen = is_known and source in task.seen_by
        news = TaskUpdate(task_id=task.task_id, updated_at=task.updated_at, position=positions[task.task_id], seen=seen)
        due_since = max(task.updated_at, task.not_before or task.updated_at)
        is_unclaimed = task.status == "pending" and due_since < now - UNCLAIMED_AFTER
        if is_known and (task.status in SETTLED or is_unclaimed) and task.updated_at > now - SHOWN_FOR:
            shown.append(news)
        elif not is_known and (task.status in SETTLED or (is_unclaimed and task.shown_at is None)):
            unseen.append(news)
    looked_at = heapq.nlargest(LOOKED_AT, shown, key=lambda item: (item.updated_at, item.position))
    unseen += [item for item in looked_at if not item.seen or item.updated_at > now - SEEN_FOR]
    return [
        describe_update(
            task_id=item.task_id,
            status=task.status,
            agent_name=task.agent_name,
            titled=task.titled,
            question=last_question(task),
            error=task.error,
            updated_at=task.updated_at,
            seen=item.seen,
        )
        for item in choose(unseen)
        for task in [contents.tasks[item.task_id]]
    ]
