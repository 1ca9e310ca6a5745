"""Reads sessions of the JSON store, one in memory at a time, including unsaved changes of the current command."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from models.access.session_glob import matches_glob, require_visible
from models.errors import NotFound
from models.field_types import ID_PATTERN
from sessions.documents.document import SessionItem, TaskItem
from sessions.embeddings.vector_cache import VectorCache
from sessions.files.row_views import count_contents, count_outline
from sessions.files.session_file import SessionFile, load_session_file, parse_outline, parse_session_file, parse_tasks
from sessions.files.store_folder import SESSION, BrokenFile, Folder
from sessions.reads.not_found import CANDIDATES, Kind, missing, nearest_of
from sessions.reads.read_scope import ReadScope
from sessions.reads.session_names import nearest_sessions

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SessionReader:
    """The sessions in a folder. Reads of all sessions log invalid files and skip them."""

    def __init__(self, folder: Folder, draft: SessionFile | None = None) -> None:
        """`draft` is the session that the current command is changing."""
        self._folder = folder
        self._draft = draft

    @property
    def vectors(self) -> VectorCache | None:
        """The vectors of passages in this process' memory, if meanings are compared."""
        return self._folder.vectors

    def find(self, session_id: str) -> SessionFile | None:
        """Return the session with this id, or None. Raises BrokenFile."""
        if self._draft is not None and self._draft.session_id == session_id:
            found = self._draft
        elif re.search(ID_PATTERN, session_id):
            found = load_session_file(self._folder, session_id)
        else:
            return None
        return found if found.session else None

    def require(self, session_id: str, session_glob: str | None = None) -> SessionFile:
        """Return the session with this id. Raises Forbidden, NotFound or BrokenFile."""
        require_visible(session_id, session_glob)
        found = self.find(session_id)
        if found is None:
            similar = self.similar_sessions(session_id, session_glob=session_glob)
            raise missing("session", session_id, similar=similar)
        return found

    def within(self, read_scope: ReadScope) -> Iterator[SessionFile]:
        """Yield the sessions that a read may access, unordered."""
        if read_scope.session_id is not None:
            yield self.require(read_scope.session_id, read_scope.session_glob)
            return
        for contents in self._each(parse_session_file):
            if matches_glob(contents.session_id, read_scope.session_glob):
                yield contents
        if self._draft and self._draft.session and matches_glob(self._draft.session_id, read_scope.session_glob):
            yield self._draft

    def summaries(self, session_glob: str | None) -> Iterator[tuple[SessionItem, dict[str, int]]]:
        """Yield the sessions that a pattern allows, with their counts, unordered."""
        for outline in self._each(parse_outline):
            if matches_glob(outline.session.session_id, session_glob):
                yield outline.session, count_outline(outline)
        if self._draft and self._draft.session and matches_glob(self._draft.session_id, session_glob):
            yield self._draft.session, count_contents(self._draft)

    def tasks_since(self, moment: datetime) -> Iterator[tuple[SessionItem, Iterable[TaskItem]]]:
        """Yield the tasks of all sessions written since then, unordered."""
        for outline in self._each(parse_tasks, since=moment):
            yield outline.session, outline.tasks
        if self._draft and self._draft.session:
            yield self._draft.session, self._draft.tasks.values()

    def similar_sessions(self, wanted: str, *, session_glob: str | None) -> dict[str, str]:
        """Return up to three sessions with a similar id or title, with their titles."""
        known = ((item.last_activity_at, item.session_id, item.title) for item, _ in self.summaries(session_glob))
        latest = heapq.nlargest(CANDIDATES, known)
        return nearest_sessions(wanted, {session_id: title for _, session_id, title in latest})

    def _each(self, parse: Callable[[Folder, Path, bytes], T], *, since: datetime | None = None) -> Iterator[T]:
        drafted = self._draft and self._folder.path(self._draft.session_id, SESSION)
        for path in self._folder.sessions():
            if path == drafted or (since and not self._folder.is_written_since(path, since)):
                continue
            try:
                body = self._folder.read(path)
                if body is not None:
                    yield parse(self._folder, path, body)
            except BrokenFile as error:
                logger.warning("%s", error.message)


def not_in_session(kind: Kind, wanted: str, known: Iterable[str], *, message: str = "") -> NotFound:
    """Return the error for an id missing in a session; `known` are the existing ids, the latest first."""
    latest = [key for key, _ in zip(known, range(CANDIDATES), strict=False)]
    return missing(kind, wanted, similar=nearest_of(wanted, latest), message=message)
