"""Encodes the outcomes of a drain for waiting senders, once and within limits, with updates on their tasks.

`worker.inbox` sends them when it acknowledges the entries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.agent_commands import AGENT_COMMANDS
from models.errors import Forbidden
from models.queue.inbox import Outcome, outcome_key
from sessions.commands.store import Store
from sessions.responses.oversized_responses import without_data
from sessions.responses.task_updates import listener_of
from sessions.rules.event_log import ApplyResult

OUTCOME_BYTES = 524_288
"""Per outcome: more than the longest response to a read in any script."""
ANNOUNCED_BYTES = 4_096
"""The waiting relay fetches larger outcomes: Redis disconnects subscribers with more than 32 MB unread."""
FORBIDDEN = HTTPStatus(Forbidden.status)
NOTHING = Raw(b"{}")
"""The response of a delivery that was deleted with its session, or discarded."""


class EncodedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """An encoded outcome for a waiting sender."""

    key: str
    source: str
    outcome: bytes
    """Stored, unless it is empty."""
    kept: bytes
    """The message if it is stored."""
    refused: bytes
    """The message if it does not fit."""


def encode_outcomes(
    store: Store, applied: Sequence[ApplyResult], *, stale: Collection[str] = ()
) -> list[EncodedOutcome]:
    """Encode the outcomes of entries with waiting senders. Those with `stale` keys are not stored: their session was
    deleted in the same transaction."""
    waiting = [item for item in applied if item.entry.waits]
    news = _find_news(store, waiting)
    return [_encode(item, updates, stale) for item, updates in zip(waiting, news, strict=True)]


def _find_news(store: Store, waiting: Sequence[ApplyResult]) -> list[list[dict[str, Any]]]:
    """Returns each sender's updates on the tasks of its session, as the relay cannot call senders."""
    listeners = [listener_of(item.entry, item.response) if _hears_news(item) else None for item in waiting]
    wanted = {listener for listener in listeners if listener}
    updates = store.updates(wanted, datetime.now(UTC)) if wanted else {}
    return [updates.get(listener, []) if listener else [] for listener in listeners]


def _hears_news(item: ApplyResult) -> bool:
    is_agents = item.entry.command in AGENT_COMMANDS
    return not is_agents and item.redacted is None and item.http_status != FORBIDDEN and item.response != NOTHING


def _encode(item: ApplyResult, updates: list[dict[str, Any]], stale: Collection[str]) -> EncodedOutcome:
    """Encode an outcome. The message of a small one contains it; that of a large one says that it can be fetched."""
    entry = item.entry
    key = outcome_key(entry.source, entry.delivery_id, entry.hash)
    body = item.response if item.redacted is None else item.redacted
    if updates:
        body = _with_field(body, b'"updates":%b' % msgspec.json.encode(updates))
    outcome = Outcome(status=item.http_status, body=body, accepted_at=entry.accepted_at)
    encoded = msgspec.json.encode(outcome)
    fits = len(encoded) <= OUTCOME_BYTES
    if len(encoded) <= ANNOUNCED_BYTES:
        kept = refused = _message(key, encoded)
    else:
        kept = _message(key)
        refused = _message(key, msgspec.json.encode(without_data(entry, outcome, is_temporary=fits)))
    return EncodedOutcome(
        key=key,
        source=entry.source,
        outcome=encoded if fits and key not in stale else b"",
        kept=kept,
        refused=refused,
    )


def _with_field(body: Raw, field: bytes) -> Raw:
    """An object that we encoded, with one more field at its end."""
    return Raw(b"%b,%b}" % (bytes(body).rstrip()[:-1], field))


def _message(key: str, outcome: bytes = b"") -> bytes:
    """Returns an encoded OutcomeMessage, without encoding the outcome again."""
    return b'{"key":%b%b}' % (msgspec.json.encode(key), outcome and b',"outcome":%b' % outcome)
