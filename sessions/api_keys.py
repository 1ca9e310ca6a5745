"""The register of API keys: making, listing and revoking them, and bringing the copy in Redis that relays read.

Postgres has the truth. A revocation is in Redis first, where every relay finds it within seconds, also while Postgres
is away, and stays there.
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
RESERVED_NAMES = frozenset({"default", "github", "dashboard"})
"""Those of API_KEY, of GITHUB_WEBHOOK_SECRET, and of who works in the dashboard."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made; its secret is known here and never again."""

    secret: str
    entry: KeyEntry


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """What a revocation led to."""

    revocations: Sequence[Revocation]
    recorded: bool
    """Whether Postgres knows it, too. If not, a worker tells it when it is back."""


def connect_register(settings: Settings, *, taken_names: Collection[str] = ()) -> KeyRegister:
    """The register on the servers that the settings name; connects when it is first used, and says soon when one of
    them is away. `taken_names` are those of signing secrets. Raises SettingsError."""
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set: expected redis://:password@host:port/0.")
    seconds = {"socket_timeout": REDIS_TIMEOUT_SECONDS, "socket_connect_timeout": REDIS_TIMEOUT_SECONDS}
    redis = Redis.from_url(settings.redis_url, **REDIS_OPTIONS, retry=Retry(NoBackoff(), 1), **seconds)
    engine = create_engine(settings, application_name="session-relay keys", pool_size=2)
    return KeyRegister(engine, redis, taken_names=taken_names)


class KeyRegister:
    """The register, on one Postgres and one Redis."""

    def __init__(self, engine: Engine, redis: Redis, *, taken_names: Collection[str] = ()) -> None:
        """`taken_names` stand for other senders: deliveries are told apart by the name of who sent them."""
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
        """Make a key, which works within 5 s. A name stands for one sender for ever: a further key of that sender is
        made with `rotate`, for the same sessions. If it raises, which may be Invalid, Conflict, NotFound or
        Unavailable, none was made."""
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
                    raise _name_known(name) if earlier else _name_unknown(name)
                if any(known.session_glob != session_glob for known in earlier):
                    raise Conflict(
                        "The sender's other keys are for other sessions, and it can ask for all its deliveries.",
                        code="pattern_differs",
                        field="sessions",
                        expected=f"the same as theirs: {earlier[0].session_glob or 'nothing'}",
                        hint="For other sessions make a key with another name.",
                    )
                if is_hook and not session_exists(connection, session_glob or ""):
                    raise NotFound(
                        f"There is no session {session_glob!r}.",
                        code="session_not_found",
                        field="sessions",
                        hint="create_session starts it; a hook stores into a session that is there.",
                    )
                add_key(connection, entry)
        except SQLAlchemyError as error:
            raise _database_trouble(error) from error
        self._announce(entry)
        return NewKey(secret=secret, entry=entry)

    def derive(
        self, *, parent_hash: str, name: str, scopes: Sequence[Scope], session_glob: str | None, app: str
    ) -> NewKey:
        """Make a token for an app whose user has a key: it may do what that key may, for the same sender, and is
        refused as soon as the key is. It works within 5 s. Raises Unavailable; then none was made."""
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
            raise _database_trouble(error) from error
        self._announce(entry)
        return NewKey(secret=secret, entry=entry)

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()
        self._engine.dispose()

    def entries(self) -> list[KeyEntry]:
        """All keys, revoked ones too. Raises Unavailable."""
        try:
            with self._engine.connect() as connection:
                return find_keys(connection)
        except SQLAlchemyError as error:
            raise _database_trouble(error) from error

    def revoke(self, name_or_id: str, *, by: str) -> Revoked:
        """Refuse a key, or all keys of a name, within 5 s and for ever. May be repeated. Raises NotFound; or
        Unavailable without Redis, which alone can tell all relays: then it is not certain what was revoked."""
        try:
            copy = self._copied()
            revoked = self._revocations()
            truth = self._recorded(name_or_id)
            if truth is None and not self._redis.exists(VERSION_KEY):
                raise Unavailable("Neither Postgres nor the copy of the keys in Redis is there; nothing was revoked.")
            found = {h: record for h, record in copy.items() if name_or_id in (record.name, record.key_id)}
            found.update({entry.key_hash: entry.record for entry in truth or []})
            known = {h: old for h, old in revoked.items() if name_or_id in (old.name, old.key_id)}
            if not found and not known:
                raise NotFound(
                    f"There is no key {name_or_id[:64]!r}.", code="key_not_found", hint="GET /v1/keys lists them all."
                )
            now = datetime.now(UTC)
            for key_hash, record in found.items():
                known.setdefault(
                    key_hash, Revocation(key_id=record.key_id, name=record.name, revoked_at=now, revoked_by=by)
                )
            self._put_revocations(known)
        except RedisError as error:
            raise Unavailable(
                "Redis does not answer, so that relays cannot be told: the key may go on to work. Repeat it."
            ) from error
        return Revoked(revocations=list(known.values()), recorded=self._record(known))

    def synchronize(self) -> bool:
        """Bring what Redis and Postgres know of each other; says whether the copy in Redis was changed. May be
        repeated. Raises SQLAlchemyError or RedisError when a server is away."""
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.watch(VERSION_KEY)  # type: ignore[no-untyped-call]
            revoked = self._revocations()
            with self._engine.begin() as connection:
                entries = find_keys(connection)
                mark_revoked(connection, [(e.key_hash, revoked[e.key_hash]) for e in entries if _is_news(e, revoked)])
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
            if not lost and pipeline.get(VERSION_KEY) is not None and self._copied() == wanted:
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
            except WatchError:  # Somebody changed a key meanwhile; the next turn sees it.
                return False
        return True

    def _check(self, name: str, scopes: Sequence[Scope], session_glob: str | None) -> None:
        if not re.search(NAME_PATTERN, name):
            raise Invalid(
                f"The name {name[:64]!r} is not valid.",
                field="name",
                expected="1 to 64 letters, digits and . _ -, the first a letter or digit, and no key_ before it",
            )
        if name in self._taken_names:
            raise Conflict(
                f"The name {name!r} stands for another sender: that of API_KEY, or of a signing secret.",
                code="name_taken",
                field="name",
                hint="Choose another name.",
            )
        is_hook = list(scopes) == ["hook"]
        if not scopes or not (is_hook or set(scopes) <= set(ALL_SCOPES)):
            raise Invalid(
                "The scopes are not valid.",
                field="scopes",
                expected=f"some of {', '.join(ALL_SCOPES)}; or hook alone, for a token that stands in an address",
            )
        if is_hook and (session_glob is None or not re.search(ID_PATTERN, session_glob)):
            raise Invalid(
                "A hook stores into one session, which has to be named.",
                field="sessions",
                expected="the id of a session",
            )
        if session_glob is not None and not re.search(GLOB_PATTERN, session_glob):
            raise Invalid(
                "The pattern of sessions is not valid.",
                field="sessions",
                expected="1 to 128 letters, digits and . _ : @ -, with * for any text and ? for one character",
            )

    def _announce(self, entry: KeyEntry) -> None:
        """Tell the relays at once; should that fail, a worker does within seconds."""
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

    def _copied(self) -> dict[str, KeyRecord]:
        copy = cast("dict[bytes, bytes]", self._redis.hgetall(REGISTER_KEY))
        return {key_hash.decode(): msgspec.json.decode(record, type=KeyRecord) for key_hash, record in copy.items()}

    def _revocations(self) -> dict[str, Revocation]:
        revoked = cast("dict[bytes, bytes]", self._redis.hgetall(REVOKED_KEY))
        return {key_hash.decode(): msgspec.json.decode(old, type=Revocation) for key_hash, old in revoked.items()}

    def _recorded(self, name_or_id: str) -> list[KeyEntry] | None:
        """What Postgres knows, or None while it is away."""
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


def _is_news(entry: KeyEntry, revoked: Mapping[str, Revocation]) -> bool:
    return entry.revoked_at is None and entry.key_hash in revoked


def _name_known(name: str) -> Conflict:
    return Conflict(
        f"There is, or was, a key with the name {name!r}.",
        code="name_known",
        field="name",
        hint="A name stands for one sender for ever. Choose another, or give this sender a further key with rotate.",
    )


def _name_unknown(name: str) -> NotFound:
    return NotFound(
        f"There is no key with the name {name!r} to be rotated.",
        code="key_not_found",
        field="name",
        hint="Leave rotate out.",
    )


def _database_trouble(error: SQLAlchemyError) -> Exception:
    return unavailable() if is_unavailable(error) else error
