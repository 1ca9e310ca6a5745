"""Batches that a source has just sent, sent once more without an id. Of single commands the rules tell a repeat."""

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
    """By session the last change, agents' reports aside, as far as a batch can repeat it; in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._said: dict[str, Said] = {}
        self._known: set[str] = set()

    def look_up(self, sent: Iterable[tuple[Entry, Command | Exception]]) -> None:
        """Find out what was said last in the sessions of these entries, unless that is known."""
        entries = [entry for entry, command in sent if may_repeat(entry, command)]
        entries = [entry for entry in entries if entry.session_id not in self._known]
        if entries:
            self._said |= self._store.last_said(entries)
            self._known.update(entry.session_id for entry in entries if entry.session_id)

    def find_repeated(self, entry: Entry, command: Command) -> Said | None:
        """What the entry repeats."""
        said = self._said.get(entry.session_id or "")
        return said if said and may_repeat(entry, command) and is_repeat(entry, said) else None

    def remember(self, entry: Entry, command: Command, response: Raw) -> None:
        """Note that the entry has changed its session."""
        if entry.session_id is None or entry.command in AGENT_COMMANDS:
            return
        self.forget(entry.session_id)
        if may_repeat(entry, command):
            said = Said(source=entry.source, hash=entry.hash, at=entry.accepted_at, response=response)
            self._said[entry.session_id] = said

    def forget(self, session_id: str) -> None:
        """Forget what was said last in a session: it cannot be repeated any more."""
        self._said.pop(session_id, None)
        self._known.add(session_id)


def may_repeat(entry: Entry, command: Command | Exception) -> bool:
    """Whether only its content can tell that it is a repeat. What is read in a batch is read anew each time."""
    if not isinstance(command, Batch) or not entry.is_unnamed or entry.resolution or entry.session_id is None:
        return False
    return not any(COMMANDS[item.command].is_read for item in command.commands)


def is_repeat(entry: Entry, said: Said | None) -> bool:
    """Whether it says what was said last in its session, by the same source, a moment ago."""
    return (
        said is not None
        and (said.source, said.hash) == (entry.source, entry.hash)
        and abs(entry.accepted_at - said.at) < REPEAT_WINDOW
    )


def answer_again(said: Said) -> ReadResult:
    """The first answer, marked as that to a repeat."""
    first = msgspec.json.decode(said.response)
    data: dict[str, Any] = first["data"]
    for part in (data, *(result.get("data") or {} for result in data.get("results", ()))):
        if "created" in part:
            part["created"] = False
        part.pop("outcome", None)
    message = f"Taken for a repeat of what was just sent, and not done again: {first['message']}"
    return ReadResult(data=data, message=shorten(message))
