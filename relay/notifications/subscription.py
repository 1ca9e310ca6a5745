"""Subscribes to a Redis channel, and again after the connection is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from redis.asyncio import Redis

from relay.redis_client import REDIS_ERRORS

RECONNECT_SECONDS = 0.5
"""Short, because messages are lost meanwhile; subscribers also poll."""

logger = logging.getLogger(__name__)


async def subscribe(redis: Redis, channel: str, handle: Callable[[bytes], None]) -> None:
    """Call `handle` with each message, until cancelled. Holds one connection.

    Messages that are sent while the connection is lost are lost; one that `handle` cannot decode is logged and skipped.
    """
    lost = False
    while True:
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(channel)
                if lost:
                    logger.info("Subscribed to %s again.", channel)
                    lost = False
                async for message in pubsub.listen():
                    try:
                        handle(message["data"])
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        logger.warning("Skipped an unreadable message on %s.", channel)
        except REDIS_ERRORS as error:
            logger.warning("Lost the subscription to %s (%s); retrying.", channel, type(error).__name__)
            lost = True
        await asyncio.sleep(RECONNECT_SECONDS)
