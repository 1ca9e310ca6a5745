"""Resolves a title that was sent without a session_id to an existing session or a new one."""

from __future__ import annotations

from itertools import islice

import msgspec

from models.access.session_glob import require_visible
from models.commands.definitions import Command
from models.queue.inbox import Entry
from sessions.commands.store import Store
from sessions.rules.dispatch import ReadSet
from sessions.rules.lifecycle import further_ids, goes_on
from sessions.rules.records import session_key
from sessions.rules.state import State

IDS_AT_A_TIME = 50
"""Ids to check per query when a title was used before."""


def is_taken(entry: Entry, command: Command, *, state: State) -> bool:
    """Check whether the title's id belongs to a different or a completed session."""
    session = state.session(entry.session_id or "")
    return session is not None and not goes_on(session, command)


def name_session(entry: Entry, command: Command, *, state: State, store: Store) -> Entry:
    """Give the entry another session_id that its title can have, and load what the command touches there. All changes
    must have been written. Raises Forbidden if the key's pattern allows no other id."""
    session_id = _find_available_id(entry.session_id or "", command, store)
    if session_id is None:
        return entry
    require_visible(session_id, entry.session_glob)
    wanted = ReadSet()
    wanted.add(command, session_id)
    state.absorb(store.load(wanted))
    return msgspec.structs.replace(entry, session_id=session_id, names_session=False)


def _find_available_id(taken: str, command: Command, store: Store) -> str | None:
    further = further_ids(taken)
    while some := list(islice(further, IDS_AT_A_TIME)):
        known = store.load(ReadSet(keys={session_key(session_id) for session_id in some}))
        for session_id in some:
            session = known.session(session_id)
            if session is None or goes_on(session, command):
                return session_id
    return None
