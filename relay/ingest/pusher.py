"""Pushes entries into the inbox; those that arrive at the same time share one script call.

Parsing commands and answering their senders is left to others.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import hiredis
import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from models.errors import Unavailable
from models.queue.inbox import (
    BACKLOG_BYTES_KEY,
    BACKLOG_KEY,
    ENTRY_BYTES,
    REPEAT_WINDOW,
    WAKE_SECONDS,
    Entry,
    Receipt,
    dedup_key,
    drain_pending_key,
    inbox_key,
    receipt_of,
    shard_of,
    shard_of_key,
)
from models.timestamps import format_utc
from relay.redis_client import REDIS_ERRORS

PushVerdict = Literal["accepted", "duplicate", "conflict"]

BATCH_ENTRIES = 64
BATCH_BYTES = 1_048_576
BATCHES_IN_FLIGHT = 2
"""Two, so that a batch does not wait for the reply to the one before; each needs a connection. More only make batches
smaller: with four, a webhook takes a tenth more CPU. What arrives while both are in flight makes the next batch.
Waiting up to 2 ms for more made end to end a tenth slower."""

PUSH_SCRIPT = """
local receipts, woken, marked, numbers, sizes = {}, {}, {}, {}, {}
for i = 1, (#KEYS - 2) / 3 do
  local seen, stream, wake = unpack(KEYS, 3 * i, 3 * i + 2)
  local value, waits, source, entry, since = unpack(ARGV, 5 * i - 4, 5 * i)
  local known = redis.call('SET', seen, value, 'NX', 'GET')
  if known and since ~= '' and cjson.decode(string.sub(known, 65)).accepted_at <= since then
    redis.call('SET', seen, value)
    known = false
  end
  if known and string.sub(known, 1, 64) ~= string.sub(value, 1, 64) then
    receipts[i] = {'conflict', string.sub(known, 65)}
  elseif known and waits == '0' then
    receipts[i] = {'duplicate', string.sub(known, 65)}
  else
    redis.call('XADD', stream, '*', 'e', entry)
    numbers[source] = (numbers[source] or 0) + 1
    sizes[source] = (sizes[source] or 0) + #entry + ENTRY_BYTES
    if not marked[wake] then
      marked[wake] = true
      if redis.call('SET', wake, '1', 'NX', 'EX', WAKE_SECONDS) then woken[#woken + 1] = stream end
    end
    receipts[i] = known and {'duplicate', string.sub(known, 65)} or 'accepted'
  end
end
for source, number in pairs(numbers) do
  redis.call('HINCRBY', KEYS[1], source, number)
  redis.call('HINCRBY', KEYS[2], source, sizes[source])
end
return {receipts, woken}
""".replace("WAKE_SECONDS", str(WAKE_SECONDS)).replace("ENTRY_BYTES", str(ENTRY_BYTES))
"""Pushes entries, each once: the keys in COMMON_KEYS, then three keys and five arguments per entry, see
`push_arguments`. Returns for each entry 'accepted', or another verdict with the earlier receipt, and the streams of the
shards to drain. A duplicate whose sender waits is pushed again: the worker drops it, and sends the outcome. A delivery
from before the last argument's time, if there is one, counts as another event with the same content."""
COMMON_KEYS = (BACKLOG_KEY, BACKLOG_BYTES_KEY)

_SCRIPT_HASH = hashlib.sha1(PUSH_SCRIPT.encode(), usedforsecurity=False).hexdigest()

logger = logging.getLogger(__name__)


class Pushed(msgspec.Struct, frozen=True):
    """The inbox' verdict: a conflict was not stored; a duplicate has the receipt of the first."""

    verdict: PushVerdict
    receipt: Receipt


class PendingPush(msgspec.Struct, frozen=True):
    """An encoded entry that is being pushed."""

    delivery_id: str
    receipt: Receipt
    keys: list[str]
    arguments: list[str | bytes]
    size: int
    done: Callable[[Pushed | Exception], None]
    """Called once with the result."""

    def settle(self, result: Pushed | Exception) -> None:
        """Call `done`. What it raises is logged: the other entries of the batch have their own senders."""
        try:
            self.done(result)
        except Exception:
            logger.exception("Bug: the sender of a webhook could not be answered.")

    def result_of(self, answer: Any) -> Pushed:
        """Returns the script's verdict."""
        if answer == b"accepted":
            return Pushed("accepted", self.receipt)
        verdict, receipt = answer
        known = msgspec.json.decode(receipt, type=Receipt)
        return Pushed("conflict" if verdict == b"conflict" else "duplicate", known)


class Pusher:
    """Pushes entries in batches, in the order in which they arrive."""

    def __init__(self, redis: Redis, *, wake: Callable[[Iterable[int]], None], count: Callable[[int], None]) -> None:
        """`redis` has BATCHES_IN_FLIGHT connections; `wake` is called with the shards to drain, and `count` with the
        number of entries in each batch that was pushed. Both return at once."""
        self._redis = redis
        self._wake = wake
        self._count = count
        self._waiting: deque[PendingPush] = deque()
        self._some = asyncio.Event()

    def push(self, entry: Entry) -> asyncio.Future[Pushed]:
        """Store the entry durably, once. The result raises Unavailable, with the id for a retry, if it is not certain.

        If waiting for it is cancelled, the entry may be stored or not.
        """
        result: asyncio.Future[Pushed] = asyncio.get_running_loop().create_future()
        self.push_then(entry, partial(_settle, result))
        return result

    def push_then(self, entry: Entry, done: Callable[[Pushed | Exception], None]) -> None:
        """As `push`, but calls `done`, which should not raise, with the result or the error."""
        receipt = receipt_of(entry)
        keys, arguments = push_arguments(entry, receipt)
        size = sum(map(len, arguments))
        self._waiting.append(PendingPush(entry.delivery_id, receipt, keys, arguments, size, done))
        self._some.set()

    async def run(self) -> None:
        """Send batches, until cancelled."""
        slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        async with asyncio.TaskGroup() as batches:
            while True:
                await slots.acquire()
                await self._some.wait()
                if batch := self._next_batch():
                    sending = batches.create_task(self._send(batch))
                    sending.add_done_callback(lambda _: slots.release())
                else:  # The waiting entries failed meanwhile.
                    slots.release()

    def _next_batch(self) -> list[PendingPush]:
        batch: list[PendingPush] = []
        size = 0
        while self._waiting and len(batch) < BATCH_ENTRIES:
            size += self._waiting[0].size
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        if not self._waiting:
            self._some.clear()
        return batch

    async def _send(self, batch: list[PendingPush]) -> None:
        try:
            answers, streams = await self._run_script(batch)
            self._count(len(batch))
            results = [pending.result_of(answer) for pending, answer in zip(batch, answers, strict=True)]
            for pending, result in zip(batch, results, strict=True):
                pending.settle(result)
            if streams:
                self._wake_later([shard_of_key(stream) for stream in streams])
        except REDIS_ERRORS as error:
            cause = type(error).__name__
            logger.warning("Redis did not confirm webhooks (%s).", cause, extra={"webhooks": len(batch)})
            if isinstance(error, RedisTimeoutError):
                # The other entries would wait as long, batch after batch, and their senders with them.
                batch += self._waiting
                self._waiting.clear()
                self._some.clear()
            for pending in batch:
                pending.settle(_not_confirmed(pending.delivery_id))
        except Exception as error:
            for pending in batch:
                pending.settle(error)

    def _wake_later(self, shards: list[int]) -> None:
        """Call `wake` once the senders are answered, as the thread that it wakes takes the interpreter for a while."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._wake, shards)

    async def _run_script(self, batch: list[PendingPush]) -> Any:
        keys = [*COMMON_KEYS, *(key for pending in batch for key in pending.keys)]
        arguments = [argument for pending in batch for argument in pending.arguments]
        command = ("EVALSHA", _SCRIPT_HASH, len(keys), *keys, *arguments)
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]
        connection = await self._redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            # As `execute_command` does it, which takes much longer to pack a long command.
            await connection.send_packed_command(packed)
            return await connection.read_response()
        except NoScriptError:  # Nothing was run; EVAL also loads the script.
            pass
        finally:
            await self._redis.connection_pool.release(connection)
        return await self._redis.eval(PUSH_SCRIPT, len(keys), *keys, *arguments)


def push_arguments(entry: Entry, receipt: Receipt) -> tuple[list[str], list[str | bytes]]:
    """Returns the keys and arguments of PUSH_SCRIPT for an entry."""
    shard = shard_of(entry.session_id)
    keys = [dedup_key(entry.source, entry.delivery_id), inbox_key(shard), drain_pending_key(shard)]
    waits = "1" if entry.waits or entry.resolution else "0"
    since = format_utc(entry.accepted_at - REPEAT_WINDOW) if entry.by_content else ""
    value = entry.hash.encode() + msgspec.json.encode(receipt)
    return keys, [value, waits, entry.source, msgspec.json.encode(entry), since]


def _settle(future: asyncio.Future[Pushed], result: Pushed | Exception) -> None:
    if future.done():
        return  # Nobody waits any more.
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _not_confirmed(delivery_id: str) -> Unavailable:
    return Unavailable(
        "The inbox did not confirm that the webhook is stored. Send it again with the same id; it takes effect once.",
        hint=f"Retry it with the header Idempotency-Key: {delivery_id}",
    )
