"""Authorization codes: each is good once, for some minutes, and kept by its hash alone, in Redis."""

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
"""A Grant, or after its use what stands for that."""
CODE_SECONDS = 300
USED = b"used:"
"""Followed by the id of the token that was given for it, as soon as there is one."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has allowed an app, and how the app has to prove that it is the one."""

    client_id: str
    redirect_uri: str
    explicit: bool
    """Whether the app named the address, and has to name it again."""
    code_challenge: str
    resource: str | None
    state: str | None
    parent_hash: str
    name: str
    scopes: tuple[Scope, ...]
    session_glob: str | None
    expires_at: float


class Codes:
    """The codes of all relays."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def issue(self, grant: Grant) -> str:
        """A new code for a grant. Raises Unavailable."""
        code = secrets.token_urlsafe(32)
        try:
            await self._redis.set(_key(code), msgspec.json.encode(grant), ex=CODE_SECONDS)
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return code

    async def look_up(self, code: str) -> Grant | str | None:
        """The grant of a code; or, if it was used, the id of the token that was given for it, which may be empty; or
        None. Raises Unavailable."""
        try:
            found = await self._redis.get(_key(code))
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return _decode(found)

    async def use(self, code: str) -> Grant | str | None:
        """The same, and use the code up: of several at a time one gets the grant. Raises Unavailable."""
        try:
            found = await self._redis.set(_key(code), USED, xx=True, keepttl=True, get=True)
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return _decode(found)

    async def give_back(self, code: str, grant: Grant) -> None:
        """Let a code be used once more, as no token was given for it. Raises Unavailable."""
        try:
            await self._redis.set(_key(code), msgspec.json.encode(grant), xx=True, keepttl=True)
        except REDIS_ERRORS as error:
            raise _unavailable() from error

    async def note_token(self, code: str, key_id: str) -> None:
        """Remember which token a code was used for. Raises Unavailable."""
        try:
            await self._redis.set(_key(code), USED + key_id.encode(), ex=CODE_SECONDS)
        except REDIS_ERRORS as error:
            raise _unavailable() from error


def expiry() -> float:
    """When a code that is issued now ends."""
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
    return Unavailable("Signing in does not work at the moment; try again in some seconds.")
