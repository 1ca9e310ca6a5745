"""Runs commands that reach a store without the inbox, one at a time: from text to entry, and from the result to the
response or error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from models.access.scopes import ALL_SCOPES
from models.commands.content_ids import make_uuid7
from models.commands.definitions import ReadCommand
from models.commands.payloads import Submission, definition_of, parse_envelope
from models.commands.responses import success
from models.error_parsing import parse_error
from models.errors import Invalid, RelayError
from models.queue.inbox import Entry, make_entry
from sessions.commands.store import Store
from sessions.reads.read_commands import LISTS
from sessions.reads.results import Page, ReadResult
from sessions.responses.task_updates import Listener, listener_of
from sessions.rules.event_log import ApplyResult


def parse_direct(
    command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
) -> Submission:
    """Parse the command with the checks of a webhook. Raises NotJson or Invalid."""
    envelope = {"command": command, "session_id": session_id, "data": data, "id": delivery_id}
    return parse_envelope(msgspec.json.encode({name: value for name, value in envelope.items() if value is not None}))


def parse_list(command: str, data: dict[str, Any], *, session_id: str | None) -> tuple[ReadCommand, str | None]:
    """Parse a list command; returns it with its session. Raises Invalid."""
    submission = parse_direct(command, data, session_id=session_id)
    if not isinstance(submission.command, ReadCommand) or definition_of(command) not in LISTS:
        raise Invalid(f"{command} is not a list command.", field="command")
    return submission.command, submission.session_id


def direct_entry(submission: Submission, *, source: str) -> Entry:
    """The entry that the inbox would have held, accepted now."""
    return make_entry(
        submission,
        source=source,
        delivery_id=submission.delivery_id or make_uuid7(),
        accepted_at=datetime.now(UTC),
        scopes=list(ALL_SCOPES),
        waits=True,
        is_unnamed=submission.delivery_id is None,
    )


def respond(entry: Entry, answer: ReadResult, store: Store) -> dict[str, Any]:
    """The response to a read, with the updates of the session."""
    now = datetime.now(UTC)
    body = success(
        command=entry.command,
        session_id=entry.session_id,
        delivery_id=entry.delivery_id,
        now=now,
        message=answer.message,
        data=answer.data,
    )
    return _with_updates(plain(body), listener_of(entry, msgspec.json.encode(body)), store, now)


def response_of(applied: ApplyResult, store: Store) -> dict[str, Any] | RelayError:
    """The response to an applied command, with the updates of the session; or its error, to be raised once its record
    is stored."""
    body: dict[str, Any] = msgspec.json.decode(applied.response)
    if "error" in body:
        return parse_error(body, status=applied.http_status)
    return _with_updates(body, listener_of(applied.entry, applied.response), store, datetime.now(UTC))


def plain(value: Any) -> Any:
    """The value as it is after sending: JSON that was kept as text is decoded."""
    return msgspec.json.decode(msgspec.json.encode(value))


def plain_page(page: Page) -> Page:
    """The page with plain items."""
    return msgspec.structs.replace(page, items=plain(page.items))


def _with_updates(body: dict[str, Any], listener: Listener | None, store: Store, now: datetime) -> dict[str, Any]:
    updates = store.updates([listener], now).get(listener) if listener else None
    return body | {"updates": plain(updates)} if updates else body
