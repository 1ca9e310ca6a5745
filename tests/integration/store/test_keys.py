"""The register of API keys and the copy of it that relays read, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import Engine, text

from models.access.api_keys import REGISTER_KEY, REVOKED_KEY, VERSION_KEY, KeyRecord, hash_key
from models.errors import Conflict, Invalid, NotFound, RelayError, Unavailable
from models.settings import Settings
from relay.auth.api_key_cache import ApiKeyCache
from sessions.api_keys import KeyRegister, NewKey, connect_register
from tests.support.ports import free_port


@pytest.fixture
def register(engine: Engine, redis: Redis) -> Iterator[KeyRegister]:
    """An empty register, whose copy is complete."""
    register = KeyRegister(engine, redis, taken_names={"signer"})
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM api_keys"))
    register.synchronize()
    yield register
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM api_keys"))


def make(register: KeyRegister, name: str = "phone", **more: Any) -> NewKey:
    return register.create(**{"name": name, "scopes": ["write"], "session_glob": None, "created_by": "test", **more})


def find(redis_url: str, secret: str, *, other_names: tuple[str, ...] = ()) -> KeyRecord | None:
    """Return the record of a key as a newly started relay sees it."""

    async def look() -> KeyRecord | None:
        async with AsyncRedis.from_url(redis_url) as client:
            key_cache = ApiKeyCache(client, other_names=other_names, first_key="")
            await key_cache.refresh()
            return key_cache.find(hash_key(secret))

    return asyncio.run(look())


def test_a_new_key_is_known_at_once_and_not_stored(register: KeyRegister, redis: Redis, redis_url: str) -> None:
    new = make(register, scopes=["delegate", "read"], session_glob="chat-*")
    assert new.secret.startswith("srk_")
    record = find(redis_url, new.secret)
    assert record is not None
    assert (record.name, record.scopes, record.session_glob) == ("phone", ("read", "delegate"), "chat-*")
    assert register.entries() == [new.entry]
    kept = repr([redis.hgetall(key) for key in (REGISTER_KEY, REVOKED_KEY)]) + repr(register.entries())
    assert new.secret not in kept
    assert find(redis_url, new.secret[:-1] + ("a" if new.secret[-1] != "a" else "b")) is None


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"name": "a:b"}, Invalid, "name"),
        ({"name": ""}, Invalid, "name"),
        ({"name": "a\n"}, Invalid, "name"),
        ({"name": "key_1"}, Invalid, "name"),
        ({"name": "a" * 65}, Invalid, "name"),
        ({"name": "default"}, Conflict, "name"),
        ({"name": "github"}, Conflict, "name"),
        ({"name": "signer"}, Conflict, "name"),
        ({"scopes": []}, Invalid, "scopes"),
        ({"scopes": ["send"]}, Invalid, "scopes"),
        ({"scopes": ["hook", "write"]}, Invalid, "scopes"),
        ({"scopes": ["hook"]}, Invalid, "sessions"),
        ({"scopes": ["hook"], "session_glob": "chat-*"}, Invalid, "sessions"),
        ({"scopes": ["hook"], "session_glob": "nowhere"}, NotFound, "sessions"),
        ({"session_glob": "a b"}, Invalid, "sessions"),
        ({"session_glob": ""}, Invalid, "sessions"),
        ({"rotate": True}, NotFound, "name"),
    ],
)
def test_an_invalid_request_for_a_key_creates_none(
    register: KeyRegister, changes: dict[str, Any], error: type[RelayError], field: str
) -> None:
    with pytest.raises(error) as caught:
        make(register, **changes)
    assert caught.value.field == field
    assert register.entries() == []


def test_a_name_stays_with_one_sender(register: KeyRegister, redis_url: str) -> None:
    first = make(register)
    with pytest.raises(Conflict, match="already exists, or existed"):
        make(register)
    second = make(register, rotate=True, scopes=["read"])
    assert find(redis_url, first.secret) is not None
    register.revoke(first.entry.key_id, by="test")
    assert find(redis_url, first.secret) is None
    assert find(redis_url, second.secret) is not None
    register.revoke("phone", by="test")
    assert find(redis_url, second.secret) is None
    with pytest.raises(Conflict):
        make(register)
    with pytest.raises(Conflict) as caught:
        make(register, rotate=True, session_glob="other-*")
    assert caught.value.code == "pattern_differs"


def test_only_one_of_many_simultaneous_requests_gets_a_name(register: KeyRegister) -> None:
    def take(_: int) -> bool:
        try:
            make(register)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(8))) == 1
    assert len(register.entries()) == 1


def test_revoking_can_be_repeated_and_returns_the_key(register: KeyRegister) -> None:
    new = make(register)
    first = register.revoke("phone", by="ana")
    assert first.recorded
    assert [(old.key_id, old.name, old.revoked_by) for old in first.revocations] == [(new.entry.key_id, "phone", "ana")]
    assert register.revoke(new.entry.key_id, by="bo").revocations == first.revocations
    entry = register.entries()[0]
    assert (entry.revoked_at, entry.revoked_by) == (first.revocations[0].revoked_at, "ana")
    with pytest.raises(NotFound) as caught:
        register.revoke("nobody", by="ana")
    assert caught.value.code == "key_not_found"


def test_revoking_without_redis_fails_and_changes_nothing(register: KeyRegister, settings: Settings) -> None:
    make(register)
    lost = connect_register(
        Settings(database_url=settings.database_url, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    )
    with pytest.raises(Unavailable, match="may still work"):
        lost.revoke("phone", by="ana")
    lost.close()
    assert register.entries()[0].revoked_at is None


def test_a_key_can_be_revoked_and_stays_so_without_postgres(
    register: KeyRegister, redis: Redis, redis_url: str, engine: Engine
) -> None:
    new = make(register)
    nowhere = f"postgresql://x@127.0.0.1:{free_port()}/x"
    half = connect_register(Settings(database_url=nowhere, redis_url=redis_url))
    revoked = half.revoke("phone", by="ana")
    assert not revoked.recorded
    assert find(redis_url, new.secret) is None
    with pytest.raises(Unavailable):
        half.create(name="other", scopes=["read"], session_glob=None, created_by="ana")
    half.close()
    register.synchronize()
    entry = register.entries()[0]
    assert (entry.revoked_at, entry.revoked_by) == (revoked.revocations[0].revoked_at, "ana")
    # As after restoring a backup from before the key was created.
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET revoked_at = NULL, revoked_by = NULL"))
    redis.delete(VERSION_KEY)
    register.synchronize()
    assert find(redis_url, new.secret) is None
    assert register.entries()[0].revoked_at is not None


def test_a_lost_copy_is_restored_and_no_key_is_accepted_meanwhile(
    register: KeyRegister, redis: Redis, redis_url: str
) -> None:
    kept, gone = make(register), make(register, "gone")
    register.revoke("gone", by="ana")
    redis.flushdb()
    late = make(register, "late")  # This must not make the copy seem complete.
    for new in (kept, gone, late):
        with pytest.raises(Unavailable):
            find(redis_url, new.secret)
    assert register.synchronize()
    assert not register.synchronize()
    assert find(redis_url, kept.secret) is not None
    assert find(redis_url, late.secret) is not None
    assert find(redis_url, gone.secret) is None
    assert redis.hlen(REVOKED_KEY) == 1


def test_a_key_unknown_to_postgres_is_removed_from_the_copy(
    register: KeyRegister, redis_url: str, engine: Engine
) -> None:
    new = make(register)
    with engine.begin() as connection:  # As after restoring a backup from before the key was created.
        connection.execute(text("DELETE FROM api_keys"))
    assert register.synchronize()
    assert find(redis_url, new.secret) is None


def test_a_key_with_the_name_of_a_secret_is_refused(register: KeyRegister, redis_url: str) -> None:
    new = make(register)
    assert find(redis_url, new.secret, other_names=("phone",)) is None
    assert find(redis_url, new.secret, other_names=("other",)) is not None


def test_a_relay_that_cannot_check_keys_refuses_all(register: KeyRegister, redis_url: str) -> None:
    new = make(register)

    async def look() -> None:
        key_cache = ApiKeyCache(AsyncRedis.from_url(redis_url), other_names=(), first_key="")
        with pytest.raises(Unavailable):
            key_cache.find(hash_key(new.secret))

    asyncio.run(look())
