"""Authorization codes: each is valid once, for some minutes. Redis stores only their hashes."""

from __future__ import annotations

import hashlib
import secrets
import time

import msgspec
from redis.asyncio import Redis

from models.errors import Unavailable
from models.field_types import Scope
from relay.redis_client import REDIS_ERRORS

CODE_KEY = "sr:oauth:code:{hash}"
"""Holds a Grant, or the USED marker once the code was used."""
CODE_SECONDS = 300
USED = b"used:"
"""Followed by the id of the token issued for the code, once there is one."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A user's permission for an app, and how the app proves that it is the same one."""

    client_id: str
    redirect_uri: str
    explicit: bool
    """True if the app named the redirect URI, and therefore must name it again."""
    code_challenge: str
    resource: str | None
    state: str | None
    parent_hash: str
    name: str
    scopes: tuple[Scope, ...]
    session_glob: str | None
    expires_at: float


class Codes:
    """The authorization codes, shared by all relay processes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def issue(self, grant: Grant) -> str:
        """Create a code for a grant. Raises Unavailable."""
        code = secrets.token_urlsafe(32)
        try:
            await self._redis.set(_key(code), msgspec.json.encode(grant), ex=CODE_SECONDS)
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return code

    async def look_up(self, code: str) -> Grant | str | None:
        """Return the grant of a code, or None for an unknown one. For a used code, return the id of the token issued
        for it, which may be empty. Raises Unavailable."""
        try:
            found = await self._redis.get(_key(code))
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return _decode(found)

    async def use(self, code: str) -> Grant | str | None:
        """Consume a code; returns the same as look_up. Of concurrent callers one gets the grant. Raises Unavailable."""
        try:
            found = await self._redis.set(_key(code), USED, xx=True, keepttl=True, get=True)
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return _decode(found)

    async def restore(self, code: str, grant: Grant) -> None:
        """Restore a consumed code, because no token was issued for it. Raises Unavailable."""
        try:
            await self._redis.set(_key(code), msgspec.json.encode(grant), xx=True, keepttl=True)
        except REDIS_ERRORS as error:
            raise _unavailable() from error

    async def record_token(self, code: str, key_id: str) -> None:
        """Record the token issued for a code. Raises Unavailable."""
        try:
            await self._redis.set(_key(code), USED + key_id.encode(), ex=CODE_SECONDS)
        except REDIS_ERRORS as error:
            raise _unavailable() from error


def expiry() -> float:
    """The time at which a code issued now expires."""
    return time.time() + CODE_SECONDS


def _key(code: str) -> str:
    return CODE_KEY.format(hash=hashlib.sha256(code.encode()).hexdigest())


def _decode(found: object) -> Grant | str | None:
    if not isinstance(found, bytes):
        return None
    if found.startswith(USED):
        return found.removeprefix(USED).decode()
    return msgspec.json.decode(found, type=Grant)


def _unavailable() -> Unavailable:
    return Unavailable("Sign-in is temporarily unavailable; retry in a few seconds.")
