"""Recognizes batches that a source has just sent and sends again without an id. Rules recognize repeats of single
commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.agent_commands import AGENT_COMMANDS
from models.commands.definitions import COMMANDS, Batch, Command
from models.commands.responses import shorten
from models.queue.inbox import REPEAT_WINDOW, Entry
from sessions.commands.store import Store
from sessions.reads.results import ReadResult
from sessions.rules.event_log import Said


class LatestChanges:
    """The last change of each session, agents' commands aside, as far as a batch can repeat it; in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._said: dict[str, Said] = {}
        self._known: set[str] = set()

    def look_up(self, sent: Iterable[tuple[Entry, Command | Exception]]) -> None:
        """Load the last changes of the sessions of these entries, unless they are known."""
        entries = [entry for entry, command in sent if may_repeat(entry, command)]
        entries = [entry for entry in entries if entry.session_id not in self._known]
        if entries:
            self._said |= self._store.last_said(entries)
            self._known.update(entry.session_id for entry in entries if entry.session_id)

    def find_repeated(self, entry: Entry, command: Command) -> Said | None:
        """The change that the entry repeats, if any."""
        said = self._said.get(entry.session_id or "")
        return said if said and may_repeat(entry, command) and is_repeat(entry, said) else None

    def remember(self, entry: Entry, command: Command, response: Raw) -> None:
        """Record that the entry has changed its session."""
        if entry.session_id is None or entry.command in AGENT_COMMANDS:
            return
        self.forget(entry.session_id)
        if may_repeat(entry, command):
            said = Said(source=entry.source, hash=entry.hash, at=entry.accepted_at, response=response)
            self._said[entry.session_id] = said

    def forget(self, session_id: str) -> None:
        """Forget the last change of a session: it can no longer be repeated."""
        self._said.pop(session_id, None)
        self._known.add(session_id)


def may_repeat(entry: Entry, command: Command | Exception) -> bool:
    """Check whether only its content can identify a repeat. Batches with reads are executed again each time."""
    if not isinstance(command, Batch) or not entry.is_unnamed or entry.resolution or entry.session_id is None:
        return False
    return not any(COMMANDS[item.command].is_read for item in command.commands)


def is_repeat(entry: Entry, said: Said | None) -> bool:
    """Check whether the entry repeats the last change of its session, by the same source and within the repeat
    window."""
    return (
        said is not None
        and (said.source, said.hash) == (entry.source, entry.hash)
        and abs(entry.accepted_at - said.at) < REPEAT_WINDOW
    )


def answer_again(said: Said) -> ReadResult:
    """The first response, marked as that to a repeat."""
    first = msgspec.json.decode(said.response)
    data: dict[str, Any] = first["data"]
    for part in (data, *(result.get("data") or {} for result in data.get("results", ()))):
        if "created" in part:
            part["created"] = False
        part.pop("outcome", None)
    message = f"Recognized as a repeat of the batch just sent and not executed again: {first['message']}"
    return ReadResult(data=data, message=shorten(message))
