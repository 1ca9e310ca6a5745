"""Races of many claimers for the same tasks: over HTTP, with the same statements in threads, and with a bare UPDATE.

A part of bench.claims, which starts the servers.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from sqlalchemy import Engine, text

from sessions.postgres.tasks.claims import ClaimCriteria, ClaimedTask, claim

TASKS = 500
"""The number of tasks in a race."""
KEY = "key-of-the-bench"
"""The key of the stack."""


async def race(port: int, name: str) -> list[str]:
    """Claim on one connection until no task is left. Returns the ids of the claimed tasks."""
    body = msgspec.json.encode({"agent_name": name})
    head = f"POST /v1/tasks/claim HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[str] = []
    while True:
        writer.write(request)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if answer[9:12] == b"204":
            writer.close()
            return taken
        length = int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        taken.append(msgspec.json.decode(await reader.readexactly(length))["task_id"])


def clear(engine: Engine) -> None:
    """Complete all tasks."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE tasks SET status = 'completed', lease_expires_at = NULL, finished_at = now() "
                "WHERE finished_at IS NULL"
            )
        )


def race_in_threads(engine: Engine, names: list[str]) -> float:
    """Measure claims per second without HTTP."""

    def race(number: int) -> int:
        wanted = ClaimCriteria(agent_name=names[number % len(names)], worker="w", lease_seconds=60, source="bench")
        taken = 0
        while True:
            with engine.begin() as connection:
                if not isinstance(claim(connection, wanted), ClaimedTask):
                    return taken
            taken += 1

    return rate_of(race)


def race_bare(engine: Engine) -> float:
    """Measure the minimal claim, a single UPDATE."""
    statement = text(
        """
        UPDATE tasks SET status = 'claimed', lease_expires_at = now() + interval '1 minute', attempt = attempt + 1
        WHERE (session_id, task_id) = (SELECT session_id, task_id FROM tasks WHERE status = 'pending'
            AND agent_name IS NULL AND task_type = 'bench' ORDER BY priority DESC, position LIMIT 1
            FOR UPDATE SKIP LOCKED) RETURNING task_id
        """
    )

    def race(_: int) -> int:
        taken = 0
        while True:
            with engine.begin() as connection:
                if connection.execute(statement).first() is None:
                    return taken
            taken += 1

    return rate_of(race)


def rate_of(race: Any) -> float:
    """Measure claims per second with as many threads as the app uses."""
    threads = 6
    began_at = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        taken = sum(pool.map(race, range(threads)))
    if taken != TASKS:
        raise RuntimeError(f"{taken} claims of {TASKS} tasks.")
    return TASKS / (time.perf_counter() - began_at)
