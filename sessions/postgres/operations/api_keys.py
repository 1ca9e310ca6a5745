"""API keys in Postgres. `sessions.api_keys` publishes changes to the relays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, text, update

from models.access.api_keys import KeyRecord, Revocation
from models.field_types import Scope
from models.tables import API_KEYS, SESSIONS


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key."""

    key_hash: str
    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    session_glob: str | None
    created_at: datetime
    created_by: str
    parent_hash: str | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    @property
    def record(self) -> KeyRecord:
        """The fields that relays need."""
        return KeyRecord(
            key_id=self.key_id,
            name=self.name,
            scopes=self.scopes,
            session_glob=self.session_glob,
            parent_hash=self.parent_hash,
        )


def lock_register(connection: Connection) -> None:
    """Block the creation of keys by others until the transaction ends, so that a name that is free stays free."""
    connection.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))


def add_key(connection: Connection, entry: KeyEntry) -> None:
    """Add a key."""
    connection.execute(insert(API_KEYS).values(**msgspec.structs.asdict(entry) | {"scopes": list(entry.scopes)}))


def find_keys(connection: Connection, *, name_or_id: str | None = None) -> list[KeyEntry]:
    """Return all keys, or those with one name or id, including revoked ones; the oldest first."""
    statement = select(API_KEYS).order_by(API_KEYS.c.created_at, API_KEYS.c.key_id)
    if name_or_id is not None:
        statement = statement.where(_named(name_or_id))
    return [msgspec.convert(dict(row._mapping), KeyEntry) for row in connection.execute(statement)]


def mark_revoked(connection: Connection, revocations: Iterable[tuple[str, Revocation]]) -> None:
    """Mark keys, given by their hashes, as revoked. Earlier revocations stay unchanged."""
    for key_hash, revocation in revocations:
        connection.execute(
            update(API_KEYS)
            .where(API_KEYS.c.key_hash == key_hash, API_KEYS.c.revoked_at.is_(None))
            .values(revoked_at=revocation.revoked_at, revoked_by=revocation.revoked_by)
        )


def session_exists(connection: Connection, session_id: str) -> bool:
    """Return whether a session has this id."""
    return bool(connection.scalar(select(func.count()).where(SESSIONS.c.session_id == session_id)))


def _named(name_or_id: str) -> ColumnElement[bool]:
    return or_(API_KEYS.c.name == name_or_id, API_KEYS.c.key_id == name_or_id)
