"""This process' copy of the valid API keys in Redis, refreshed each second."""

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

REFRESH_SECONDS = 1.0
REFRESH_TIMEOUT_SECONDS = 2.0
FRESH_SECONDS = 4.0
"""A revoked key is rejected within 5 s: a copy that was not confirmed for that long admits nobody."""

logger = logging.getLogger(__name__)


class ApiKeyCache:
    """Finds a key's record by its hash, without asking Redis while a request waits."""

    def __init__(self, redis: Redis, *, other_names: Collection[str], first_key: str) -> None:
        """`other_names` are the names of signing secrets: a key of the same name would pass for their sender.
        `first_key` is API_KEY, for which OAuth apps may have tokens, too."""
        self._redis = redis
        self._first_hash = hash_key(first_key) if first_key else None
        self._other_names = frozenset(other_names)
        self._records: Mapping[str, KeyRecord] = {}
        self._version: bytes | None = None
        self._fresh_until = 0.0

    def find(self, key_hash: str) -> KeyRecord | None:
        """Returns the record of a valid key, or None. Raises Unavailable while the copy is stale."""
        if time.monotonic() > self._fresh_until:
            raise Unavailable("API keys cannot be checked at the moment; retry in a few seconds.")
        record = self._records.get(key_hash)
        parent_hash = record.parent_hash if record else None
        if parent_hash is not None and parent_hash != self._first_hash and parent_hash not in self._records:
            return None
        return record

    async def run(self) -> None:
        """Refresh the copy each second, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Load the keys if they have changed. While Redis is unavailable, or has lost them, the copy grows stale."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_SECONDS):
                version = await self._redis.get(VERSION_KEY)
                if version is not None and version != self._version:
                    version = await self._load()
        except (*REDIS_ERRORS, TimeoutError):
            return
        if version is not None:
            self._fresh_until = began_at + FRESH_SECONDS
        elif self._version is not None:
            self._fresh_until, self._version = 0.0, None
            logger.warning("Redis has lost its copy of the API keys; a worker restores it.")

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
            logger.error("Rejecting the API key %s: a signing secret has the same name.", name)
        self._records = {
            key_hash: record
            for key_hash, record in records.items()
            if record is not None and record.name not in self._other_names
        }
        self._version = version
        return version  # type: ignore[no-any-return]


def _decode(record: bytes) -> KeyRecord | None:
    """Returns None for a record that a later version has written."""
    try:
        return msgspec.json.decode(record, type=KeyRecord)
    except msgspec.DecodeError:
        logger.exception("An API key in Redis cannot be read.")
        return None
