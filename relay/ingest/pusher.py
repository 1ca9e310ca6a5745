"""Pushing accepted commands into the inbox: those that are in flight at the same time go in one script call.

What a command is, and what its sender is told, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from models.errors import Unavailable
from models.queue.inbox import PUSH_SCRIPT, Entry, PushVerdict, Receipt, push_arguments, shard_of_key
from relay.redis_client import RedisTrouble

BATCH_ENTRIES = 64
BATCH_BYTES = 1_048_576
GATHER_SECONDS = 0.002
"""How long at most a push waits for company while others are under way; alone it goes at once."""
BATCHES_IN_FLIGHT = 4
"""So that the next batch does not wait for the answer to the last one; each needs a connection."""

_SCRIPT_HASH = hashlib.sha1(PUSH_SCRIPT.encode(), usedforsecurity=False).hexdigest()

logger = logging.getLogger(__name__)


class Pushed(msgspec.Struct, frozen=True):
    """What the inbox said: a conflict was not stored; a duplicate has the receipt of the first."""

    verdict: PushVerdict
    receipt: Receipt


class _Waiting(NamedTuple):
    delivery_id: str
    keys: list[str]
    arguments: list[str | bytes]
    size: int
    result: asyncio.Future[Pushed]

    def fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class Pusher:
    """Gathers entries into batches in the order in which they come, and pushes those."""

    def __init__(self, redis: Redis, *, wake: Callable[[Iterable[int]], None]) -> None:
        """`redis` has BATCHES_IN_FLIGHT connections; `wake` is told the shards to drain, and returns at once."""
        self._redis = redis
        self._wake = wake
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._in_flight = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    async def push(self, entry: Entry) -> Pushed:
        """Store the entry durably, once. Raises Unavailable, with the id to repeat it under, if that is not certain.

        Who is cancelled meanwhile may find it stored or not.
        """
        keys, arguments = push_arguments([entry])
        size = sum(map(len, arguments))
        result: asyncio.Future[Pushed] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(entry.delivery_id, keys, arguments, size, result))
        self._waiting_bytes += size
        self._some.set()
        if len(self._waiting) >= BATCH_ENTRIES or self._waiting_bytes >= BATCH_BYTES:
            self._enough.set()
        return await result

    async def run(self) -> None:
        """Send batches, until cancelled."""
        slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        async with asyncio.TaskGroup() as batches:
            while True:
                await slots.acquire()
                await self._some.wait()
                if self._in_flight:
                    await self._gather()
                if batch := self._take():
                    sending = batches.create_task(self._send(batch))
                    sending.add_done_callback(lambda _: slots.release())
                else:  # What was waiting failed meanwhile.
                    slots.release()

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._enough.wait()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < BATCH_ENTRIES:
            size += self._waiting[0].size
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
            self._waiting_bytes -= batch[-1].size
        if not self._waiting:
            self._some.clear()
        if len(self._waiting) < BATCH_ENTRIES and self._waiting_bytes < BATCH_BYTES:
            self._enough.clear()
        return batch

    async def _send(self, batch: list[_Waiting]) -> None:
        self._in_flight += 1
        try:
            verdicts, streams = await self._run_script(batch)
            for waiting, (verdict, receipt) in zip(batch, verdicts, strict=True):
                if not waiting.result.done():
                    pushed = Pushed(cast(PushVerdict, verdict.decode()), msgspec.json.decode(receipt, type=Receipt))
                    waiting.result.set_result(pushed)
            if streams:
                self._wake([shard_of_key(stream) for stream in streams])
        except RedisTrouble as error:
            logger.warning("Redis did not confirm %d webhooks (%s).", len(batch), type(error).__name__)
            if isinstance(error, RedisTimeoutError):
                # The others would wait as long, one batch after the other, and their senders with them.
                batch += self._waiting
                self._waiting.clear()
                self._waiting_bytes = 0
                self._some.clear()
            for waiting in batch:
                waiting.fail(_not_confirmed(waiting.delivery_id))
        except Exception as error:
            for waiting in batch:
                waiting.fail(error)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._enough.set()

    async def _run_script(self, batch: list[_Waiting]) -> Any:
        keys = [key for waiting in batch for key in waiting.keys]
        arguments = [argument for waiting in batch for argument in waiting.arguments]
        try:
            return await self._redis.evalsha(_SCRIPT_HASH, len(keys), *keys, *arguments)
        except NoScriptError:  # Nothing was run; EVAL also loads it for the next time.
            return await self._redis.eval(PUSH_SCRIPT, len(keys), *keys, *arguments)


def _not_confirmed(delivery_id: str) -> Unavailable:
    return Unavailable(
        "The inbox did not confirm that the webhook is stored. Send it again under the same id; it takes effect once.",
        hint=f"Repeat it with the header Idempotency-Key: {delivery_id}",
    )
