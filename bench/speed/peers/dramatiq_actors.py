"""Dramatiq: a message per webhook, on its Redis broker."""

from __future__ import annotations

import importlib
import os
from typing import Any

from starlette.concurrency import run_in_threadpool

from bench.speed.peers.effects import apply

dramatiq: Any = importlib.import_module("dramatiq")
redis_broker: Any = importlib.import_module("dramatiq.brokers.redis")
broker = redis_broker.RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)
actor = dramatiq.actor(apply)


async def enqueue(body: str) -> None:
    """Enqueue the message of a webhook."""
    await run_in_threadpool(actor.send, body)
