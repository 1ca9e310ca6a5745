"""The keys that are in force, as this process knows them: a copy of the copy in Redis, looked at each second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping

import msgspec
from redis.asyncio import Redis

from models.access.api_keys import REGISTER_KEY, REVOKED_KEY, VERSION_KEY, KeyRecord, hash_key
from models.errors import Unavailable
from relay.redis_client import REDIS_ERRORS

LOOK_SECONDS = 1.0
LOOK_TIMEOUT_SECONDS = 2.0
FRESH_SECONDS = 4.0
"""A revoked key is refused within 5 s: what was not confirmed for so long lets nobody in."""

logger = logging.getLogger(__name__)


class ApiKeyCache:
    """Finds the record of a key by its hash. Never asks Redis while a request waits."""

    def __init__(self, redis: Redis, *, other_names: Collection[str], first_key: str) -> None:
        """`other_names` are those of secrets: a key of the same name would be taken for their sender. `first_key` is
        that of the environment, which apps may have tokens for, too."""
        self._redis = redis
        self._first_hash = hash_key(first_key) if first_key else None
        self._other_names = frozenset(other_names)
        self._records: Mapping[str, KeyRecord] = {}
        self._version: bytes | None = None
        self._fresh_until = 0.0

    def find(self, key_hash: str) -> KeyRecord | None:
        """The record of a key in force, or None. Raises Unavailable while it cannot be known."""
        if time.monotonic() > self._fresh_until:
            raise Unavailable("API keys cannot be checked at the moment; try again in some seconds.")
        record = self._records.get(key_hash)
        parent_hash = record.parent_hash if record else None
        if parent_hash is not None and parent_hash != self._first_hash and parent_hash not in self._records:
            return None
        return record

    async def run(self) -> None:
        """Keep up with changes, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_SECONDS)

    async def refresh(self) -> None:
        """Take over what has changed. While Redis is away, or has lost its copy, what is known grows stale."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                version = await self._redis.get(VERSION_KEY)
                if version is not None and version != self._version:
                    version = await self._load()
        except (*REDIS_ERRORS, TimeoutError):
            return
        if version is not None:
            self._fresh_until = began_at + FRESH_SECONDS
        elif self._version is not None:
            self._fresh_until, self._version = 0.0, None
            logger.warning("Redis has no complete copy of the API keys; a worker brings it.")

    async def _load(self) -> bytes | None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(VERSION_KEY)
            pipeline.hgetall(REGISTER_KEY)
            pipeline.hkeys(REVOKED_KEY)
            version, register, revoked = await pipeline.execute()
        records = {key_hash.decode(): _decode(record) for key_hash, record in register.items()}
        for key_hash in revoked:
            records.pop(key_hash.decode(), None)
        for name in {record.name for record in records.values() if record and record.name in self._other_names}:
            logger.error("The API key %s is refused: a signing secret has its name.", name)
        self._records = {
            key_hash: record
            for key_hash, record in records.items()
            if record is not None and record.name not in self._other_names
        }
        self._version = version
        return version  # type: ignore[no-any-return]


def _decode(record: bytes) -> KeyRecord | None:
    """None for what a later version has written: its keys are not known here."""
    try:
        return msgspec.json.decode(record, type=KeyRecord)
    except msgspec.DecodeError:
        logger.exception("An API key in Redis cannot be read.")
        return None
