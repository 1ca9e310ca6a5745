"""Reads a session document from elsewhere: every field is checked as strictly as in commands.

The document is held in memory once. Its items are decoded twice, one by one: to check them, and to store them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any

import msgspec
from msgspec import Raw

from models.commands.definitions import ExtractedItems
from models.decoding.strict import BYTE_ORDER_MARK, decode_as, decode_json
from models.due import parse_due
from models.errors import Conflict, Invalid, NotJson, Rejected, TooLarge
from models.field_types import FINISHED
from sessions.documents.document import (
    FORMAT,
    LISTS,
    ArtifactItem,
    ArtifactRevisionItem,
    ChunkItem,
    Item,
    MemoryItem,
    RevisionItem,
    SessionItem,
    TaskItem,
    write_document,
)
from sessions.rules.records import Question

MAX_DOCUMENT_BYTES = 512 * 1_048_576
"""Limit, since a document is held in memory while it is imported."""
MAX_ITEM_BYTES = 64 * 1_048_576
"""The largest body that a webhook can be configured to have."""


class _DocumentOutline(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    session: Raw
    chunks: list[Raw]
    memories: list[Raw]
    tasks: list[Raw]
    artifacts: list[Raw]
    events: list[Raw]
    artifact_revisions: list[Raw] = []
    """Missing in older documents."""


class _Head(msgspec.Struct):
    format: str


class Document:
    """A document that passed all checks."""

    def __init__(self, outline: _DocumentOutline) -> None:
        self._outline = outline
        self.session = msgspec.json.decode(outline.session, type=SessionItem)

    def count(self, name: str) -> int:
        """The number of items in one of LISTS."""
        return len(getattr(self._outline, name))

    def items(self, name: str) -> Iterator[Any]:
        """The items of one of LISTS, in the order in which all stores export them."""
        raws: list[Raw] = getattr(self._outline, name)
        if name in _SORT_KEYS:
            order = [msgspec.json.decode(raw, type=_SORT_KEYS[name]) for raw in raws]
            raws = [raws[number] for number in sorted(range(len(raws)), key=lambda number: order[number].values)]
        return (msgspec.json.decode(raw, type=LISTS[name]) for raw in raws)

    def pieces(self, *, more: bytes = b"") -> Iterator[bytes]:
        """The document as a store exports it after importing it; `more` as in write_document."""
        return write_document(self.session, [self.items(name) for name in LISTS], more=more)


class _MemoryKey(msgspec.Struct):
    key: str
    created_at: datetime

    @property
    def values(self) -> tuple[Any, ...]:
        return self.created_at, self.key


class _RevisionKey(msgspec.Struct):
    artifact_id: str
    revision: int

    @property
    def values(self) -> tuple[Any, ...]:
        return self.artifact_id, self.revision


_SORT_KEYS: dict[str, type[_MemoryKey | _RevisionKey]] = {
    "memories": _MemoryKey,
    "artifact_revisions": _RevisionKey,
}
"""The values by which lists are sorted that need not be in order of creation."""


def read_document(stream: IO[bytes]) -> Document:
    """Read and check the whole document. Raises NotJson, TooLarge, or Invalid with the path of the error."""
    body = stream.read(MAX_DOCUMENT_BYTES + 1).removeprefix(BYTE_ORDER_MARK)
    if len(body) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"The document is larger than {MAX_DOCUMENT_BYTES // 1_048_576} MiB.")
    outline = _read_outline(body)
    with _within("session"):
        session = _decode(outline.session, SessionItem)
        _check_session(session)
    _ListChecker(outline).run()
    return Document(outline)


def require_same(wanted: Iterable[bytes], there: Iterable[bytes], session_id: str) -> None:
    """Raise Conflict unless both documents are the same."""
    if _digest(wanted) != _digest(there):
        raise Conflict(
            f"Another session already has the id {session_id!r}; it was not changed.",
            code="session_exists",
            field="session.session_id",
            hint="To replace it, export it if you need it, delete it, and import this document again.",
        )


def _digest(pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _read_outline(body: bytes) -> _DocumentOutline:
    try:
        head = decode_as(body, _Head)
        if head.format != FORMAT:
            raise Invalid(
                f"Unsupported document format {head.format[:64]!r}.",
                field="format",
                expected=FORMAT,
                hint="Export the session again with the version that imports it.",
            )
        return decode_as(body, _DocumentOutline)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(f"The document is not valid JSON ({error}).", expected="a JSON object") from error
    except RecursionError as error:
        raise Invalid("The JSON is nested too deeply.") from error


class _ListChecker:
    """Checks the lists of a document, whose records refer to each other."""

    def __init__(self, outline: _DocumentOutline) -> None:
        self._outline = outline
        self._chunks: set[str] = set()
        self._tasks: dict[str, list[str]] = {}
        self._artifacts: dict[str, int] = {}
        """The latest revision of each artifact."""

    def run(self) -> None:
        """Check all lists. Raises Invalid."""
        seen: set[str] = set()
        for name, kind in LISTS.items():
            seen.clear()
            for number, raw in enumerate(getattr(self._outline, name)):
                with _within(f"{name}[{number}]"):
                    self._check(_decode(raw, kind), seen)
        for number, task_id in enumerate(self._tasks):
            for place, needed in enumerate(self._tasks[task_id]):
                with _within(f"tasks[{number}].depends_on[{place}]"):
                    _require_known(needed, self._tasks, "", "task")
        self._check_cycles()

    def _check(self, item: Item, seen: set[str]) -> None:
        match item:
            case ChunkItem():
                self._chunks.add(_require_new(item.chunk_id, seen, "chunk_id"))
                decode_as(bytes(item.extracted_items), ExtractedItems, prefix="extracted_items.")
                _require_object(item.metadata, "metadata")
                _require_nfc(item.participants, "participants")
            case MemoryItem():
                _require_new(item.key, seen, "key")
                _check_memory(item, self._chunks)
            case TaskItem():
                _require_new(item.task_id, seen, "task_id")
                self._tasks[item.task_id] = item.depends_on
                _check_task(item)
            case ArtifactRevisionItem():
                _require_known(item.artifact_id, self._artifacts, "artifact_id", "artifact")
                _require_new(f"{item.artifact_id} {item.revision}", seen, "revision")
                if item.revision >= (latest := self._artifacts[item.artifact_id]):
                    raise Invalid(
                        "The revision is not an earlier one.", field="revision", expected=f"less than {latest}"
                    )
                self._check_artifact(item)
            case ArtifactItem():
                self._artifacts[_require_new(item.artifact_id, seen, "artifact_id")] = item.revision
                self._check_artifact(item)

    def _check_artifact(self, artifact: ArtifactItem) -> None:
        _require_nfc([artifact.name], "name")
        _require_object(artifact.metadata, "metadata")
        if artifact.task_id is not None:
            _require_known(artifact.task_id, self._tasks, "task_id", "task")

    def _check_cycles(self) -> None:
        """Remove tasks that wait for none of the rest, until all are removed. Raises Invalid if some remain."""
        waiting_for = {task_id: set(needed) for task_id, needed in self._tasks.items()}
        needed_by: dict[str, list[str]] = {}
        for task_id, needed in waiting_for.items():
            for other in needed:
                needed_by.setdefault(other, []).append(task_id)
        free = [task_id for task_id, needed in waiting_for.items() if not needed]
        while free:
            task_id = free.pop()
            del waiting_for[task_id]
            for other in needed_by.get(task_id, ()):
                waiting_for[other].discard(task_id)
                if not waiting_for[other]:
                    free.append(other)
        if waiting_for:
            number = next(number for number, task_id in enumerate(self._tasks) if task_id in waiting_for)
            raise Invalid(
                "The dependencies of the tasks form a cycle.",
                code="dependency_cycle",
                field=f"tasks[{number}].depends_on",
            )


def _check_session(session: SessionItem) -> None:
    _require_nfc([session.title], "title")
    _require_nfc(session.participants, "participants")
    _require_pair("completed_at", session.completed_at is not None, session.status == "completed")


def _check_memory(memory: MemoryItem, chunks: Collection[str]) -> None:
    before = 0
    for number, revision in enumerate([*memory.revisions, memory]):
        where = f"revisions[{number}]." if number < len(memory.revisions) else ""
        if revision.revision <= before or revision.key != memory.key:
            field = "revision" if revision.key == memory.key else "key"
            expected = f"more than {before}" if field == "revision" else repr(memory.key)
            raise Invalid(
                "The revisions of a memory must have the same key and increasing numbers.",
                field=where + field,
                expected=expected,
            )
        before = revision.revision
        _check_revision(revision, chunks, where)


def _check_revision(revision: RevisionItem, chunks: Collection[str], where: str) -> None:
    _require_utc(revision, where)
    _require_nfc([revision.key], f"{where}key")
    _require_nfc(revision.tags, f"{where}tags")
    if revision.due is not None:
        parse_due(revision.due, field=f"{where}due", now=revision.updated_at)
    if revision.chunk_id is not None:
        _require_known(revision.chunk_id, chunks, f"{where}chunk_id", "chunk")


def _check_task(task: TaskItem) -> None:
    _require_object(task.input_data, "input_data")
    decode_as(bytes(task.questions), list[Question], prefix="questions")
    _require_pair("lease_expires_at", task.lease_expires_at is not None, task.status in ("claimed", "running"))
    _require_pair("finished_at", task.finished_at is not None, task.status in FINISHED)


def _decode(raw: Raw, kind: type[Any]) -> Any:
    if len(bytes(raw)) > MAX_ITEM_BYTES:
        raise Invalid(f"The item is larger than {MAX_ITEM_BYTES // 1_048_576} MiB.")
    decode_json(bytes(raw), unique_keys=False)  # It was stored as it was once sent, perhaps with repeated keys.
    item = decode_as(bytes(raw), kind)
    _require_utc(item, "")
    return item


def _require_utc(item: Item, where: str) -> None:
    for name in item.__struct_fields__:
        moment = getattr(item, name)
        if isinstance(moment, datetime) and moment.utcoffset():
            raise Invalid("The time is not in UTC.", field=where + name, expected="ISO 8601 with Z")


@contextmanager
def _within(path: str) -> Iterator[None]:
    """Prefix the fields of errors with the path."""
    try:
        yield
    except Rejected as error:
        error.field = f"{path}.{error.field}" if error.field else path
        error.message = f"{error.message.removesuffix('.')} (at {error.field})."
        raise


def _require_new(key: str, seen: set[str], field: str) -> str:
    if key in seen:
        raise Invalid(f"Duplicate {field} {key!r}.", field=field)
    seen.add(key)
    return key


def _require_known(key: str, known: Collection[str], field: str, noun: str) -> None:
    if key not in known:
        raise Invalid(f"The document contains no {noun} {key!r}.", field=field or None)


def _require_object(value: Raw, field: str) -> None:
    if not bytes(value).startswith(b"{"):
        raise Invalid("The value is not a JSON object.", field=field, expected="a JSON object")


def _require_pair(field: str, is_there: bool, is_needed: bool) -> None:
    if is_there != is_needed:
        raise Invalid(
            "The value does not match the status.",
            field=field,
            expected="a time" if is_needed else "null in this status",
        )


def _require_nfc(names: list[str], field: str) -> None:
    for name in names:
        if not unicodedata.is_normalized("NFC", name):
            raise Invalid("The name is not in normalized form.", field=field, expected="Unicode NFC")
