"""The JSON store for command-line tools: each call's changes are on disk when it returns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from models.commands.definitions import Command, GetTask, ReadCommand
from models.errors import RelayError
from models.field_types import MAX_CHARACTERS
from models.queue.inbox import Entry
from models.settings import Settings
from sessions.backend import Imported
from sessions.commands.inline_execution import direct_entry, parse_direct, parse_list, plain_page, respond, response_of
from sessions.commands.manager import SessionManager
from sessions.documents.document import session_record
from sessions.documents.import_validation import read_document, require_same
from sessions.embeddings.configured import configured_cache
from sessions.files.reads import page, read_events
from sessions.files.session_file import load_session_file, save_document, save_session_file
from sessions.files.session_reader import SessionReader
from sessions.files.store import FilesStore
from sessions.files.store_folder import Folder
from sessions.reads.markdown_rendering import write_markdown
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.rules.lifecycle import further_ids, goes_on

POLL_SECONDS = 0.2
"""Interval between checks for new events."""


class FilesBackend:
    """Implements `sessions.backend.Backend`. Reads take no lock; changes hold the lock of their session."""

    def __init__(self, settings: Settings, *, source: str = "cli") -> None:
        """Creates no files until the first write."""
        self._folder = Folder(Path(settings.data_dir), configured_cache(settings))
        self._source = source

    def send(
        self, command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
    ) -> dict[str, Any]:
        """Apply a command. Raises the error of a rejected command. Recognizes repeats of the deliveries that the
        session's file has kept."""
        submission = parse_direct(command, data, session_id=session_id, delivery_id=delivery_id)
        entry = direct_entry(submission, source=self._source)
        asked, session_id = submission.command, submission.session_id
        if isinstance(asked, ReadCommand) and not isinstance(asked, GetTask):
            contents = SessionReader(self._folder).find(session_id) if session_id else None
            store = FilesStore(self._folder, contents)
            answer = store.read(asked, self._scope(session_id))
            return respond(entry, answer, store)
        assert session_id is not None, "Every change needs a session."
        entry = self._name_session(entry, asked)
        session_id = entry.session_id or session_id
        outcome: dict[str, Any] | RelayError
        with self._folder.lock(session_id):
            contents = load_session_file(self._folder, session_id)
            store = FilesStore(self._folder, contents)
            if isinstance(asked, GetTask):
                answer = store.read(asked, self._scope(session_id))
                outcome = respond(entry, answer, store)
            else:
                [applied] = SessionManager(store).apply([entry])
                outcome = response_of(applied, store)
            # For a missing session, write a file only if the delivery can be repeated.
            needs_file = contents.session or (store.contents and store.contents.session) or submission.delivery_id
            if store.is_changed and store.contents and needs_file:
                save_session_file(self._folder, store.contents)
        if isinstance(outcome, RelayError):
            raise outcome
        return outcome

    def _scope(self, session_id: str | None) -> ReadScope:
        return ReadScope(session_id=session_id, session_glob=None, now=datetime.now(UTC), source=self._source)

    def _name_session(self, entry: Entry, asked: Command) -> Entry:
        """Choose the session_id for a title: that of a session to continue, or a new one."""
        if not entry.names_session or entry.session_id is None:
            return entry
        reader = SessionReader(self._folder)
        for session_id in (entry.session_id, *further_ids(entry.session_id)):
            found = reader.find(session_id)
            if found is None or (found.session and goes_on(session_record(found.session), asked)):
                return msgspec.structs.replace(entry, session_id=session_id, names_session=False)
        return msgspec.structs.replace(entry, names_session=False)

    def page(self, command: str, data: dict[str, Any], *, session_id: str | None) -> Page:
        """Return a page of a list command."""
        asked, session_id = parse_list(command, data, session_id=session_id)
        return plain_page(page(SessionReader(self._folder), asked, read_scope=self._scope(session_id)))

    def events(self, session_id: str, *, after: str | None, limit: int, wait_seconds: float) -> Page:
        """Return events after a cursor, waiting up to `wait_seconds` for the first."""
        ends_at = time.monotonic() + wait_seconds
        while True:
            contents = SessionReader(self._folder).require(session_id)
            found = read_events(contents, after=after, limit=limit, max_characters=MAX_CHARACTERS)
            left = ends_at - time.monotonic()
            if found.items or left <= 0:
                return plain_page(found)
            time.sleep(min(left, POLL_SECONDS))

    def export(self, session_id: str, *, format: Literal["json", "markdown"]) -> Iterator[bytes]:
        """Export a complete session as a document. Raises NotFound before the first part."""
        contents = SessionReader(self._folder).require(session_id)
        if format == "json":
            return contents.pieces(whole=False)
        memories = sorted(contents.memories.values(), key=lambda memory: (memory.created_at, memory.key))
        parts = write_markdown(
            contents.session,
            memories=lambda kind: (memory for memory in memories if memory.type == kind),
            tasks=contents.tasks.values(),
            artifacts=contents.artifacts.values(),
            chunks=contents.transcript(),
        )
        return (part.encode() for part in parts)

    def import_document(self, document: IO[bytes]) -> Imported:
        """Import a session."""
        checked = read_document(document)
        session_id = checked.session.session_id
        with self._folder.lock(session_id):
            before = load_session_file(self._folder, session_id)
            if before.session is None:
                save_document(self._folder, checked, before)
            else:
                require_same(checked.pieces(), before.pieces(whole=False), session_id)
        return Imported(session_id=session_id, created=before.session is None)

    def session_ids(self) -> Iterator[str]:
        """Return the ids of all sessions, the oldest first."""
        found = [(item.created_at, item.session_id) for item, _ in SessionReader(self._folder).summaries(None)]
        return iter([session_id for _, session_id in sorted(found)])

    def close(self) -> None:
        """Do nothing: no resources are held between calls."""
