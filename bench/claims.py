"""Measures claims: `python -m bench.claims [claims] [wake] [ingest] [query]`, several minutes for all parts.

Prints claims per second over HTTP and for the same statements without HTTP; the latency from a delegating webhook to a
waiting claim; the cost of waiting claims and listeners for ingestion; and the time of the claim query on large tables.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from sqlalchemy import Engine

from bench.claim_query import measure_query
from bench.claim_races import KEY, TASKS, clear, race, race_bare, race_in_threads
from bench.flood import Flooded
from bench.readiness import wait_until_ready
from local.servers.embedded import start_postgres, start_valkey
from local.stack.environment import free_port
from models.settings import read_settings
from sessions.postgres.connections import create_engine

CLAIMERS, RUNS = 64, 3
WAKE_UPS = 200
WAITING = 1_000
"""The number of waiting claims, and of listeners."""
KEYS = 5
"""The number of keys, because one sender may hold only a quarter of the waiting slots."""
FLOOD_PER_SECOND = 20_000
"""More than the relay accepts, so that its limit is measured."""
FLOOD_SECONDS = 5.0
TURNS = 5
CALM_SHARE = 0.25
"""The share of one processor below which the stack counts as idle: slightly more than the waiters cost."""
IDLE_SECONDS = 45.0
"""Longer than a claim waits, so that each is repeated once."""
ROOT = Path(__file__).parent.parent

Json = dict[str, Any]


class Bench:
    """A client of the stack, with direct access to its database."""

    def __init__(self, port: int, engine: Engine, roots: list[psutil.Process]) -> None:
        self.port = port
        self.engine = engine
        self._roots = roots
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=90, limits=limits
        )

    async def send(self, command: str, session_id: str, **data: Any) -> Json:
        """Send a command and wait for its response."""
        body = {"command": command, "session_id": session_id, "data": data}
        answer = await self.client.post("/v1/webhook?wait=40", json=body)
        answer.raise_for_status()
        response: Json = answer.json()
        return response

    async def delegate(self, session_id: str, count: int, **fields: Any) -> None:
        """Create a session with `count` tasks."""
        await self.send("create_session", session_id, title="Bench")
        tasks = [
            {"command": "delegate_task", "data": {"task_id": f"t{n}", "description": f"{n}", **fields}}
            for n in range(count)
        ]
        await self.send("batch", session_id, commands=tasks)

    async def calm(self) -> None:
        """Wait until the stack has finished background work, such as first polls and vacuuming."""
        limit_at = time.monotonic() + IDLE_SECONDS
        while await self.idle_share(seconds=1) > CALM_SHARE and time.monotonic() < limit_at:
            pass

    async def idle_share(self, *, seconds: float = IDLE_SECONDS) -> float:
        """Measure the share of one processor that the idle stack and its servers use."""
        began_at, taken = time.perf_counter(), self._processor_seconds()
        await asyncio.sleep(seconds)
        return (self._processor_seconds() - taken) / (time.perf_counter() - began_at)

    def _processor_seconds(self) -> float:
        processes = [process for root in self._roots for process in (root, *root.children(recursive=True))]
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    async def register(self, name: str, **fields: Any) -> None:
        """Register an agent that may hold all tasks."""
        body = {"name": name, "type": "bench", "max_concurrent": 1_000, **fields}
        (await self.client.post("/v1/agents", json=body)).raise_for_status()


async def measure_claims(bench: Bench) -> None:
    """Measure claims per second: over HTTP, with the same statements in threads, and with a bare UPDATE."""
    names = [f"racer-{number}" for number in range(8)]
    for name in names:
        await bench.register(name)
    print(f"Claims/s, {CLAIMERS} claimers, {TASKS} tasks: over HTTP, the same statements, a bare UPDATE, ratio")
    for run in range(RUNS):
        await bench.delegate(f"http-{run}", TASKS, task_type="bench")
        began_at = time.perf_counter()
        raced = await asyncio.gather(*(race(bench.port, names[n % len(names)]) for n in range(CLAIMERS)))
        taken = [task_id for task_ids in raced for task_id in task_ids]
        by_http = TASKS / (time.perf_counter() - began_at)
        if sorted(taken) != sorted(f"t{number}" for number in range(TASKS)):
            raise RuntimeError(f"{len(taken)} claims of {TASKS} tasks.")
        clear(bench.engine)
        await bench.delegate(f"sql-{run}", TASKS, task_type="bench")
        by_sql = await asyncio.to_thread(race_in_threads, bench.engine, names)
        clear(bench.engine)
        await bench.delegate(f"bare-{run}", TASKS, task_type="bench")
        bare = await asyncio.to_thread(race_bare, bench.engine)
        clear(bench.engine)
        print(f"  run {run + 1}{by_http:>10,.0f}{by_sql:>10,.0f}{bare:>10,.0f}{by_http / by_sql:>8.2f}")


async def measure_wake_ups(bench: Bench) -> None:
    """Measure the time from posting a webhook to the response of the waiting claim."""
    await bench.register("sleeper")
    await bench.send("create_session", "wake", title="Wake")
    seconds: list[float] = []
    for number in range(WAKE_UPS):
        body = {"agent_name": "sleeper", "wait": 40}
        waiting = asyncio.create_task(bench.client.post("/v1/tasks/claim", json=body))
        await asyncio.sleep(0.05)
        command = {
            "command": "delegate_task",
            "session_id": "wake",
            "data": {"task_id": f"t{number}", "description": f"{number}", "agent_name": "sleeper"},
        }
        sent_at = time.perf_counter()
        (await bench.client.post("/v1/webhook", json=command)).raise_for_status()
        answer = await waiting
        seconds.append(time.perf_counter() - sent_at)
        if answer.json()["task_id"] != f"t{number}":
            raise RuntimeError(answer.text)
    clear(bench.engine)
    ranked = sorted(seconds)
    p50, p99 = statistics.median(ranked), ranked[int(len(ranked) * 0.99)]
    print(f"Latency of {WAKE_UPS} waiting claims, ms: p50 {p50 * 1000:.1f}, p99 {p99 * 1000:.1f}.")


async def measure_ingest(bench: Bench) -> None:
    """Measure webhooks accepted per second, alternating between no waiters and many."""
    await bench.send("create_session", "flood", title="Flood")
    keys = []
    for number in range(KEYS):
        made = await bench.client.post("/v1/keys", json={"name": f"waiter-{number}", "scopes": ["agent", "read"]})
        made.raise_for_status()
        keys.append(made.json()["key"])
    for number in range(10):
        await bench.send("create_session", f"quiet-{number}", title="Quiet")
    alone: list[float] = []
    crowded: list[float] = []
    before = await bench.idle_share()
    async with crowd(bench, keys) as count:
        share = await bench.idle_share()
        print(f"{count()} use {share - before:.1%} of one processor, over all processes.")
    for turn in range(TURNS):
        for is_crowded in (turn % 2 > 0, turn % 2 == 0):  # Alternate the order, because the tables grow.
            async with crowd(bench, keys) if is_crowded else nullcontext(lambda: "nobody") as count:
                await bench.calm()
                taken = await flood(bench.port)
            (crowded if is_crowded else alone).append(taken)
            print(f"  {count()}: {taken:,.0f} webhooks accepted/s")
            await settle(bench)
    ratios = [one / other for one, other in zip(crowded, alone, strict=True)]
    print(
        f"Ingest with {WAITING} waiting claims and {WAITING} listeners: median {statistics.median(crowded):,.0f}/s, "
        f"alone {statistics.median(alone):,.0f}/s, ratios {', '.join(f'{ratio:.2f}' for ratio in ratios)}."
    )


async def flood(port: int) -> float:
    """Measure the maximum of webhooks accepted per second."""
    command = (sys.executable, "-m", "bench.flood", str(port), KEY, str(FLOOD_PER_SECOND), str(FLOOD_SECONDS))
    flooding = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    output, _ = await flooding.communicate()
    flooded = msgspec.json.decode(output, type=Flooded)
    if set(flooded.answers) != {"202"}:
        raise RuntimeError(f"{flooded.answers}")
    return flooded.answers["202"] / flooded.seconds


async def settle(bench: Bench) -> None:
    """Wait until all accepted webhooks are applied."""
    await bench.send("get_session_summary", "flood")


@asynccontextmanager
async def crowd(bench: Bench, keys: list[str]) -> AsyncIterator[Any]:
    """Run waiters in a separate process, each on a connection of its own."""
    command = (sys.executable, "-m", "bench.crowd", str(bench.port), str(WAITING), *keys)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    ready = (await process.stdout.readline()).decode().strip()
    try:
        yield lambda: ready
    finally:
        process.stdin.close()
        await process.wait()


async def run(port: int, engine: Engine, roots: list[psutil.Process], parts: list[str]) -> None:
    """Run the selected parts, or all."""
    bench = Bench(port, engine, roots)
    await wait_until_ready(bench.client)
    for name, part in (("claims", measure_claims), ("wake", measure_wake_ups), ("ingest", measure_ingest)):
        if not parts or name in parts:
            await part(bench)
    await bench.client.aclose()
    if not parts or "query" in parts:
        await asyncio.to_thread(measure_query, engine)


def main() -> None:
    """Measure on a new stack, with limits too high to matter."""
    port = free_port("127.0.0.1", 0, variable="PORT")
    with tempfile.TemporaryDirectory(prefix="session-relay-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres runs as another user when this runs as root.
        postgres, valkey = start_postgres(folder), start_valkey(folder)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "DATA_DIR": name,
            "PORT": str(port),
            "RELAY_PROCESSES": "1",
            "API_KEY": KEY,
            "RATE_LIMIT": "1000000000/minute",
            "BYTE_LIMIT": "1000000000000/minute",
            "MAX_BACKLOG": "1000000",
        }
        print(f"Load average over the last minute: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} processors.")
        stack = subprocess.Popen((sys.executable, "-m", "local"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            engine = create_engine(read_settings(environment), application_name="bench", pool_size=8)
            roots = [psutil.Process(pid) for pid in (stack.pid, postgres.pid, valkey.pid)]
            asyncio.run(run(port, engine, roots, sys.argv[1:]))
            engine.dispose()
        finally:
            stack.terminate()
            stack.wait()
            valkey.stop()
            postgres.stop()


if __name__ == "__main__":
    main()
