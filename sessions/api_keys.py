"""The register of API keys: creates, lists and revokes them, and synchronizes the copy in Redis that relays read.

Postgres is authoritative. A revocation is written to Redis first, where every relay finds it within seconds, even while
Postgres is unavailable. It stays there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError
from redis.retry import Retry
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.access.api_keys import (
    GLOB_PATTERN,
    HOOK_PREFIX,
    KEY_PREFIX,
    NAME_PATTERN,
    OAUTH_PREFIX,
    REGISTER_KEY,
    REVOKED_KEY,
    VERSION_KEY,
    KeyRecord,
    Revocation,
    hash_key,
    key_id_of,
    make_secret,
)
from models.access.scopes import ALL_SCOPES
from models.errors import Conflict, Invalid, NotFound, SettingsError, Unavailable
from models.field_types import ID_PATTERN, Scope
from models.queue.redis_options import REDIS_OPTIONS
from models.settings import Settings
from sessions.postgres.connections import create_engine, is_unavailable, unavailable
from sessions.postgres.operations.api_keys import (
    KeyEntry,
    add_key,
    find_keys,
    lock_register,
    mark_revoked,
    session_exists,
)

REDIS_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 2
"""To Postgres; changes are rare, and take turns anyway."""
RESERVED_NAMES = frozenset({"default", "github", "dashboard"})
"""Names of other senders: API_KEY, GITHUB_WEBHOOK_SECRET, and users of the dashboard."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key. Its secret is available only here."""

    secret: str
    entry: KeyEntry


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a revocation."""

    revocations: Sequence[Revocation]
    recorded: bool
    """True if Postgres has recorded it. Otherwise a worker records it once Postgres is available."""


def connect_register(settings: Settings, *, taken_names: Collection[str] = ()) -> KeyRegister:
    """The register on the servers that the settings name. It connects on first use, and reports an unavailable server
    soon. `taken_names` are those of signing secrets. Raises SettingsError."""
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set: expected redis://:password@host:port/0.")
    seconds = {"socket_timeout": REDIS_TIMEOUT_SECONDS, "socket_connect_timeout": REDIS_TIMEOUT_SECONDS}
    redis = Redis.from_url(settings.redis_url, **REDIS_OPTIONS, retry=Retry(NoBackoff(), 1), **seconds)
    pool_size = settings.part_of(MAX_CONNECTIONS)
    engine = create_engine(settings, application_name="session-relay keys", pool_size=pool_size)
    return KeyRegister(engine, redis, taken_names=taken_names)


class KeyRegister:
    """The register, on one Postgres and one Redis."""

    def __init__(self, engine: Engine, redis: Redis, *, taken_names: Collection[str] = ()) -> None:
        """`taken_names` belong to other senders: deliveries are distinguished by the names of their senders."""
        self._engine = engine
        self._redis = redis
        self._taken_names = RESERVED_NAMES | frozenset(taken_names)

    def create(
        self,
        *,
        name: str,
        scopes: Sequence[Scope],
        session_glob: str | None,
        created_by: str,
        rotate: bool = False,
    ) -> NewKey:
        """Create a key, which works within 5 s. A name identifies one sender forever: a further key of that sender is
        created with `rotate`, for the same sessions. Raises Invalid, Conflict, NotFound or Unavailable; then no key was
        created."""
        self._check(name, scopes, session_glob)
        is_hook = "hook" in scopes
        secret = make_secret(HOOK_PREFIX if is_hook else KEY_PREFIX)
        key_hash = hash_key(secret)
        entry = KeyEntry(
            key_hash=key_hash,
            key_id=key_id_of(key_hash),
            name=name,
            scopes=tuple(scope for scope in (*ALL_SCOPES, "hook") if scope in scopes),
            session_glob=session_glob,
            created_at=datetime.now(UTC),
            created_by=created_by,
        )
        try:
            with self._engine.begin() as connection:
                lock_register(connection)
                earlier = find_keys(connection, name_or_id=name)
                if bool(earlier) != rotate:
                    raise _name_known_error(name) if earlier else _name_unknown_error(name)
                if any(known.session_glob != session_glob for known in earlier):
                    raise Conflict(
                        "All keys of a sender must have the same session pattern: each can read all its deliveries.",
                        code="pattern_differs",
                        field="sessions",
                        expected=f"the pattern of its other keys: {earlier[0].session_glob or 'none'}",
                        hint="To use other sessions, create a key with another name.",
                    )
                if is_hook and not session_exists(connection, session_glob or ""):
                    raise NotFound(
                        f"Session {session_glob!r} not found.",
                        code="session_not_found",
                        field="sessions",
                        hint="Create it with create_session first; a hook stores into an existing session.",
                    )
                add_key(connection, entry)
        except SQLAlchemyError as error:
            raise _database_error(error) from error
        self._announce(entry)
        return NewKey(secret=secret, entry=entry)

    def derive(
        self, *, parent_hash: str, name: str, scopes: Sequence[Scope], session_glob: str | None, app: str
    ) -> NewKey:
        """Create a token for an app whose user has a key. It acts for the same sender with that key's rights, and is
        refused as soon as the key is. It works within 5 s. Raises Unavailable; then no token was created."""
        secret = make_secret(OAUTH_PREFIX)
        key_hash = hash_key(secret)
        entry = KeyEntry(
            key_hash=key_hash,
            key_id=key_id_of(key_hash),
            name=name,
            scopes=tuple(scopes),
            session_glob=session_glob,
            parent_hash=parent_hash,
            created_at=datetime.now(UTC),
            created_by=f"app:{app}",
        )
        try:
            with self._engine.begin() as connection:
                add_key(connection, entry)
        except SQLAlchemyError as error:
            raise _database_error(error) from error
        self._announce(entry)
        return NewKey(secret=secret, entry=entry)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._engine.dispose()

    def entries(self) -> list[KeyEntry]:
        """All keys, including revoked ones. Raises Unavailable."""
        try:
            with self._engine.connect() as connection:
                return find_keys(connection)
        except SQLAlchemyError as error:
            raise _database_error(error) from error

    def revoke(self, name_or_id: str, *, by: str) -> Revoked:
        """Revoke a key, or all keys of a name, within 5 s and permanently. May be repeated. Raises NotFound. Raises
        Unavailable without Redis, which alone reaches all relays: then it is uncertain what was revoked."""
        try:
            copy = self._redis_copy()
            revoked = self._revocations()
            recorded = self._find_recorded(name_or_id)
            if recorded is None and not self._redis.exists(VERSION_KEY):
                raise Unavailable(
                    "Neither Postgres nor the keys in Redis are available; no key was revoked. Repeat it later."
                )
            found = {h: record for h, record in copy.items() if name_or_id in (record.name, record.key_id)}
            found.update({entry.key_hash: entry.record for entry in recorded or []})
            known = {h: old for h, old in revoked.items() if name_or_id in (old.name, old.key_id)}
            if not found and not known:
                raise NotFound(
                    f"Key {name_or_id[:64]!r} not found.", code="key_not_found", hint="GET /v1/keys lists all keys."
                )
            now = datetime.now(UTC)
            for key_hash, record in found.items():
                known.setdefault(
                    key_hash, Revocation(key_id=record.key_id, name=record.name, revoked_at=now, revoked_by=by)
                )
            self._put_revocations(known)
        except RedisError as error:
            raise Unavailable(
                "Redis does not respond, so the key may still work at the relays. Repeat the revocation."
            ) from error
        return Revoked(revocations=list(known.values()), recorded=self._record(known))

    def synchronize(self) -> bool:
        """Synchronize Redis and Postgres; returns whether the copy in Redis changed. May be repeated. Raises
        SQLAlchemyError or RedisError when a server is unavailable."""
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.watch(VERSION_KEY)  # type: ignore[no-untyped-call]
            revoked = self._revocations()
            with self._engine.begin() as connection:
                entries = find_keys(connection)
                mark_revoked(
                    connection, [(e.key_hash, revoked[e.key_hash]) for e in entries if _is_unrecorded(e, revoked)]
                )
            lost = {
                entry.key_hash: Revocation(
                    key_id=entry.key_id,
                    name=entry.name,
                    revoked_at=entry.revoked_at,
                    revoked_by=entry.revoked_by or "",
                )
                for entry in entries
                if entry.revoked_at is not None and entry.key_hash not in revoked
            }
            wanted = {e.key_hash: e.record for e in entries if e.revoked_at is None and e.key_hash not in revoked}
            if not lost and pipeline.get(VERSION_KEY) is not None and self._redis_copy() == wanted:
                return False
            pipeline.multi()
            pipeline.delete(REGISTER_KEY)
            if wanted:
                pipeline.hset(REGISTER_KEY, mapping={h: msgspec.json.encode(record) for h, record in wanted.items()})
            if lost:
                pipeline.hset(REVOKED_KEY, mapping={h: msgspec.json.encode(old) for h, old in lost.items()})
            pipeline.set(VERSION_KEY, make_secret(""))
            try:
                pipeline.execute()
            except WatchError:  # A key changed meanwhile; the next run sees it.
                return False
        return True

    def _check(self, name: str, scopes: Sequence[Scope], session_glob: str | None) -> None:
        if not re.search(NAME_PATTERN, name):
            raise Invalid(
                f"Invalid name {name[:64]!r}.",
                field="name",
                expected="1 to 64 letters, digits and . _ -, starting with a letter or digit, but not with key_",
            )
        if name in self._taken_names:
            raise Conflict(
                f"The name {name!r} is reserved for another sender, such as that of API_KEY or of a signing secret.",
                code="name_taken",
                field="name",
                hint="Choose another name.",
            )
        is_hook = list(scopes) == ["hook"]
        if not scopes or not (is_hook or set(scopes) <= set(ALL_SCOPES)):
            raise Invalid(
                f"Invalid scopes: {', '.join(scopes)[:64] or 'none'}.",
                field="scopes",
                expected=f"some of {', '.join(ALL_SCOPES)}; or only hook, for a token in a webhook URL",
            )
        if is_hook and (session_glob is None or not re.search(ID_PATTERN, session_glob)):
            raise Invalid(
                "A hook stores into one session, which must be given by its id.",
                field="sessions",
                expected="the id of a session",
            )
        if session_glob is not None and not re.search(GLOB_PATTERN, session_glob):
            raise Invalid(
                f"Invalid session pattern {session_glob[:64]!r}.",
                field="sessions",
                expected="1 to 128 letters, digits and . _ : @ -, with * for any text and ? for one character",
            )

    def _announce(self, entry: KeyEntry) -> None:
        """Publish the key to the relays at once; if that fails, a worker does so within seconds."""
        try:
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(REGISTER_KEY, entry.key_hash, msgspec.json.encode(entry.record))
                pipeline.set(VERSION_KEY, make_secret(""), xx=True)
                pipeline.execute()
        except RedisError:
            return

    def _put_revocations(self, revocations: Mapping[str, Revocation]) -> None:
        with self._redis.pipeline(transaction=True) as pipeline:
            for key_hash, revocation in revocations.items():
                pipeline.hset(REVOKED_KEY, key_hash, msgspec.json.encode(revocation))
                pipeline.hdel(REGISTER_KEY, key_hash)
            pipeline.set(VERSION_KEY, make_secret(""), xx=True)
            pipeline.execute()

    def _redis_copy(self) -> dict[str, KeyRecord]:
        copy = cast("dict[bytes, bytes]", self._redis.hgetall(REGISTER_KEY))
        return {key_hash.decode(): msgspec.json.decode(record, type=KeyRecord) for key_hash, record in copy.items()}

    def _revocations(self) -> dict[str, Revocation]:
        revoked = cast("dict[bytes, bytes]", self._redis.hgetall(REVOKED_KEY))
        return {key_hash.decode(): msgspec.json.decode(old, type=Revocation) for key_hash, old in revoked.items()}

    def _find_recorded(self, name_or_id: str) -> list[KeyEntry] | None:
        """The keys in Postgres, or None while it is unavailable."""
        try:
            with self._engine.connect() as connection:
                return find_keys(connection, name_or_id=name_or_id)
        except SQLAlchemyError as error:
            if is_unavailable(error):
                return None
            raise

    def _record(self, revocations: Mapping[str, Revocation]) -> bool:
        try:
            with self._engine.begin() as connection:
                mark_revoked(connection, revocations.items())
        except SQLAlchemyError as error:
            if is_unavailable(error):
                return False
            raise
        return True


def _is_unrecorded(entry: KeyEntry, revoked: Mapping[str, Revocation]) -> bool:
    return entry.revoked_at is None and entry.key_hash in revoked


def _name_known_error(name: str) -> Conflict:
    return Conflict(
        f"A key named {name!r} already exists, or existed and was revoked.",
        code="name_known",
        field="name",
        hint="A name identifies one sender forever. Choose another, or use rotate for a further key of this sender.",
    )


def _name_unknown_error(name: str) -> NotFound:
    return NotFound(
        f"No key named {name!r} exists, so it cannot be rotated.",
        code="key_not_found",
        field="name",
        hint="Omit rotate to create the sender's first key.",
    )


def _database_error(error: SQLAlchemyError) -> Exception:
    return unavailable() if is_unavailable(error) else error
