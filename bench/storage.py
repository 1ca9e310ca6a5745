"""Measures the bytes of webhooks: `python -m bench.storage [--count 5000]`, on a stack of its own, some minutes.

Posts two streams, one after the other: small memories (a sentence), and parts of conversations of 1,000 characters.
Prints for each what one webhook takes in the inbox while it waits, in Postgres by table, with and without the vectors
of its texts, and in Postgres' write-ahead log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import psutil
import psycopg2
from redis import Redis

from bench.own_stack import KEY, ROOT, own_stack
from bench.readiness import wait_until_ready

SESSIONS = 100
CHUNK_CHARACTERS = 1_000
SHORTEST_SENTENCE = 30
CONNECTIONS = 16
DRAIN_SECONDS = 300
EMBED_SECONDS = 3_600
SIZES = (
    "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
TO_EMBED = "SELECT count(*) FROM passages_to_embed"
LARGEST = 8
"""The tables that are printed, the largest first."""


class Snapshot(NamedTuple):
    """The bytes in use at one moment."""

    tables: dict[str, int]
    log: int


class Postgres:
    """Asks a Postgres for its sizes."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True

    def snapshot(self) -> Snapshot:
        """Return the sizes of all tables with their indexes, and how much was ever logged."""
        return Snapshot(dict(self.ask(SIZES)), int(self.ask(WAL)[0][0]))

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()


def sentences() -> list[str]:
    """Return sentences of people, in several languages."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            found.extend(part.strip() for part in value.split(". ") if len(part) > SHORTEST_SENTENCE)
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                walk(inner)

    walk(json.loads((ROOT / "bench" / "search" / "corpus.json").read_text()))
    return found


def memories(count: int) -> Iterator[dict[str, Any]]:
    """Yield webhooks that store a sentence each."""
    chance, said = random.Random(1), sentences()  # noqa: S311
    for number in range(count):
        content = f"{chance.choice(said)} ({number})."
        data = {"key": f"key-{number}", "type": "decision", "content": content, "tags": ["house"]}
        yield {"command": "store_memory", "session_id": f"session-{number % SESSIONS}", "data": data}


def conversations(count: int) -> Iterator[dict[str, Any]]:
    """Yield webhooks that append a part of a conversation each."""
    chance, said = random.Random(2), sentences()  # noqa: S311
    for number in range(count):
        text = f"User: part {number}. "
        while len(text) < CHUNK_CHARACTERS:
            text += f"{chance.choice(said)}. "
        data = {"chunk_id": f"chunk-{number}", "content": text[:CHUNK_CHARACTERS], "format": "dialogue"}
        yield {"command": "conversation_chunk", "session_id": f"session-{number % SESSIONS}", "data": data}


async def post(client: httpx.AsyncClient, webhooks: Iterator[dict[str, Any]]) -> None:
    """Post all. Raises RuntimeError if one is not accepted."""

    async def work() -> None:
        for webhook in webhooks:
            answer = await client.post("/v1/webhook", json=webhook)
            if answer.status_code != httpx.codes.ACCEPTED:
                raise RuntimeError(answer.text)

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


@contextmanager
def paused_worker(pid: int) -> Iterator[None]:
    """Suspend the worker of a stack, with all its processes, within the block."""
    processes = [
        process
        for child in psutil.Process(pid).children()
        if child.cmdline()[-1:] == ["worker"]
        for process in (child, *child.children(recursive=True))
    ]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(processes):
            process.resume()


async def wait_until(done: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds. Raises RuntimeError on timeout."""
    limit_at = time.monotonic() + seconds
    while not done():
        if time.monotonic() > limit_at:
            raise RuntimeError("The stack did not keep up.")
        await asyncio.sleep(0.5)


async def measure(port: int, postgres: Postgres, redis: Redis, *, pid: int, count: int, names: Sequence[str]) -> None:
    """Post the streams and print their costs."""
    headers = {"X-API-Key": KEY}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        await wait_until_ready(client)
        for number in range(SESSIONS):
            body = {"command": "create_session", "session_id": f"session-{number}", "data": {"title": f"Talk {number}"}}
            (await client.post("/v1/webhook?wait=30", json=body)).raise_for_status()
        for name, stream in (("memories", memories), ("conversations", conversations)):
            if name not in names:
                continue
            # Also because tables begin with whole pages.
            with paused_worker(pid):
                empty = _used(redis)
                await post(client, stream(count // 10))
                waiting = (_used(redis) - empty) / (count // 10)
            await _settle(postgres, redis)
            before = postgres.snapshot()
            sent = sum(len(json.dumps(webhook).encode()) for webhook in stream(count)) / count
            await post(client, _others(stream(count)))
            await wait_until(lambda: _is_drained(redis), DRAIN_SECONDS)
            applied = postgres.snapshot()
            await _settle(postgres, redis)
            print(f"\n{count:,} {name} of {sent:,.0f} bytes each take {waiting:,.0f} bytes of Redis while they wait.")
            show(count, before, applied, postgres.snapshot())


def _others(webhooks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the items other ids than those of the warm-up."""
    for webhook in webhooks:
        for field in ("key", "chunk_id"):
            if field in webhook["data"]:
                webhook["data"][field] += "-measured"
        yield webhook


async def _settle(postgres: Postgres, redis: Redis) -> None:
    await wait_until(lambda: _is_drained(redis), DRAIN_SECONDS)
    await wait_until(lambda: postgres.ask(TO_EMBED)[0][0] == 0, EMBED_SECONDS)


def _is_drained(redis: Redis) -> bool:
    return all(redis.xlen(f"sr:inbox:{shard:02d}") == 0 for shard in range(16))


def _used(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])


def show(count: int, before: Snapshot, applied: Snapshot, settled: Snapshot) -> None:
    """Print the bytes for each webhook of a stream."""
    stored = {table: (size - before.tables.get(table, 0)) / count for table, size in settled.tables.items()}
    at_once = {table: (size - before.tables.get(table, 0)) / count for table, size in applied.tables.items()}
    print(f"{'bytes for each':<24}{'applied':>10}{'embedded':>10}")
    for table, size in sorted(stored.items(), key=lambda item: -item[1])[:LARGEST]:
        print(f"{table:<24}{at_once.get(table, 0.0):>10,.0f}{size:>10,.0f}")
    print(f"{'all tables':<24}{sum(at_once.values()):>10,.0f}{sum(stored.values()):>10,.0f}")
    logged = [(snapshot.log - before.log) / count for snapshot in (applied, settled)]
    print(f"{'write-ahead log':<24}{logged[0]:>10,.0f}{logged[1]:>10,.0f}")


def main() -> int:
    """Measure on a new stack."""
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description=__doc__)
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--only", nargs="+", default=["memories", "conversations"])
    asked = parser.parse_args()
    with own_stack() as stack:
        description = stack.folder / "stack.json"
        limit_at = time.monotonic() + DRAIN_SECONDS
        while not description.exists() and time.monotonic() < limit_at:
            time.sleep(0.1)
        servers = json.loads(description.read_text())
        postgres, redis = Postgres(servers["database_url"]), Redis.from_url(servers["redis_url"])
        asyncio.run(measure(stack.port, postgres, redis, pid=servers["pid"], count=asked.count, names=asked.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
