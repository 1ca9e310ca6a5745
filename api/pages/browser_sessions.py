"""Browsers in which somebody is signed in. Redis holds them for all relay processes, by the hash of their cookie.

An entry names the key that was entered by its hash, and grants nothing by itself: each request looks the key up again,
so it ends with the key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import cast

import msgspec
from redis.asyncio import Redis

from models.errors import Unavailable
from relay.redis_client import REDIS_ERRORS

BROWSER_KEY = "sr:pages:browser:{hash}"
"""Holds the hash of the API key."""
BROWSERS_KEY = "sr:pages:browsers:{key_hash}"
"""A list of the browsers of one API key, by the hashes of their cookies, the latest first."""
IDLE_SECONDS = 7 * 86_400
"""A browser that shows no page for that long is signed out."""
MAX_BROWSERS = 50
"""Per API key; then the earliest are signed out. It limits what the holder of a key can make Redis hold."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class BrowserSession(msgspec.Struct, frozen=True, kw_only=True):
    """A browser in which somebody is signed in."""

    token: str
    """The value of the cookie."""
    key_hash: str

    @property
    def form_token(self) -> str:
        """The secret in this browser's forms, without which no post is accepted. Does not reveal the cookie."""
        digest = hashlib.sha256(f"form {self.token}".encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def owns(self, form_token: str) -> bool:
        """Whether a form comes from a page of this browser."""
        return hmac.compare_digest(form_token.encode("utf-8", "replace"), self.form_token.encode())


class BrowserSessions:
    """Starts, finds and ends them. Every method raises Unavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def start(self, key_hash: str) -> BrowserSession:
        """Sign in a browser with the key."""
        session = BrowserSession(token=secrets.token_urlsafe(32), key_hash=key_hash)
        name, of_key = _hash(session.token), BROWSERS_KEY.format(key_hash=key_hash)
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(BROWSER_KEY.format(hash=name), key_hash, ex=IDLE_SECONDS)
                pipeline.lpush(of_key, name)
                pipeline.lrange(of_key, MAX_BROWSERS, -1)
                pipeline.ltrim(of_key, 0, MAX_BROWSERS - 1)
                pipeline.expire(of_key, IDLE_SECONDS)
                _, _, surplus, *_ = await pipeline.execute()
            if surplus:
                await self._redis.delete(*(BROWSER_KEY.format(hash=other.decode()) for other in surplus))
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return session

    async def find(self, token: str) -> BrowserSession | None:
        """Return the session of a cookie, and keep it for another while. None for an unknown or ended one."""
        if not _TOKEN.fullmatch(token):
            return None
        try:
            found = await self._redis.getex(BROWSER_KEY.format(hash=_hash(token)), ex=IDLE_SECONDS)
        except REDIS_ERRORS as error:
            raise _unavailable() from error
        return None if found is None else BrowserSession(token=token, key_hash=cast(bytes, found).decode())

    async def end(self, session: BrowserSession) -> None:
        """Sign out the browser."""
        name = _hash(session.token)
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.delete(BROWSER_KEY.format(hash=name))
                pipeline.lrem(BROWSERS_KEY.format(key_hash=session.key_hash), 0, name)
                await pipeline.execute()
        except REDIS_ERRORS as error:
            raise _unavailable() from error


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _unavailable() -> Unavailable:
    return Unavailable("Sign-in is temporarily unavailable; retry in a few seconds.")
