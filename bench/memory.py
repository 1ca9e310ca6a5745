"""Measures Redis' memory under load: `python -m bench.memory [RATE] [SECONDS] [MAXMEMORY]`, on a stack of its own.

Posts webhooks with distinct ids, by default 100 a second for a minute with a limit of 64mb. Prints the memory by kind
of key, the steady state at a constant rate (all keys but the constant part expire), and the peak. Exits with 1 if a
webhook was rejected.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from typing import NamedTuple

import httpx
import msgspec
from redis import Redis

from bench.flood import Flooded
from bench.own_stack import KEY, ROOT, own_stack
from bench.readiness import wait_until_ready

RATES = (10, 100, 1_000)
"""Webhooks per second for which the steady state is printed."""
DEFAULTS = ("100", "60", "64mb")
PERMITTED = 0.7
"""The share of memory above which webhooks are rejected."""


class Kind(NamedTuple):
    """The keys of one kind at the end of a run."""

    keys: int
    size: int
    """The total size in bytes."""
    seconds: float
    """The time to live of a new key, -1 for no expiry."""

    def steady(self, run_seconds: float) -> float:
        """Compute the size in bytes once as many keys expire as are created."""
        if self.seconds < 0:
            return float(self.size)
        return self.size / min(run_seconds, max(self.seconds, 1.0)) * self.seconds


def kinds_of(redis: Redis) -> dict[str, Kind]:
    """Group the keys in Redis by the first two parts of their names."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for key in redis.scan_iter(count=1_000):
        size, seconds = redis.memory_usage(key), redis.ttl(key)
        if size is not None:
            found[":".join(key.decode().split(":")[:2])].append((int(size), int(seconds)))
    return {
        name: Kind(len(keys), sum(size for size, _ in keys), max(seconds for _, seconds in keys))
        for name, keys in found.items()
    }


async def run(port: int, redis: Redis, *, rate: float, seconds: float, limit: str) -> int:
    """Post, measure and print. Returns the number of rejected webhooks."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await wait_until_ready(client)
        body = {"command": "create_session", "session_id": "flood", "data": {"title": "Flood"}}
        (await client.post("/v1/webhook?wait=30", json=body, headers={"X-API-Key": KEY})).raise_for_status()
    redis.config_set("maxmemory", limit)
    idle = int(redis.info("memory")["used_memory"])
    command = (sys.executable, "-m", "bench.flood", str(port), KEY, str(rate), str(seconds))
    flooding = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    most = idle
    output = asyncio.create_task(flooding.communicate())
    while not output.done():
        most = max(most, int(redis.info("memory")["used_memory"]))
        await asyncio.sleep(0.5)
    flooded = msgspec.json.decode((await output)[0], type=Flooded)
    show(redis, flooded, kinds_of(redis), idle=idle, most=most)
    return sum(count for status, count in flooded.answers.items() if status != "202")


def show(redis: Redis, flooded: Flooded, kinds: dict[str, Kind], *, idle: int, most: int) -> None:
    """Print the results."""
    accepted = flooded.answers.get("202", 0)
    rate = accepted / flooded.seconds
    limit = int(redis.info("memory")["maxmemory"])
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(flooded.answers.items()))
    print(f"{rate:,.0f} webhooks/s for {flooded.seconds:,.0f} s, responses {answers}.")
    print(f"Redis: {idle / 1e6:.1f} MB before, {most / 1e6:.1f} MB peak, limit {limit * PERMITTED / 1e6:.1f} MB.")
    steady = "".join(f"{f'MB at {rate}/s':>14}" for rate in RATES)
    print(f"{'kind':<26}{'keys':>8}{'bytes each':>12}{'per webhook':>13}{'seconds':>9}{steady}")
    sums = [idle / 1e6 for _ in RATES]
    for name, kind in sorted(kinds.items(), key=lambda item: -item[1].steady(flooded.seconds)):
        bytes_of_all = kind.steady(flooded.seconds)
        scale = [1.0 if kind.seconds < 0 else wanted / rate for wanted in RATES]
        megabytes = [bytes_of_all * factor / 1e6 for factor in scale]
        sums = [total + more for total, more in zip(sums, megabytes, strict=True)]
        columns = "".join(f"{number:>14,.2f}" for number in megabytes)
        print(
            f"{name:<26}{kind.keys:>8,}{kind.size / kind.keys:>12,.0f}{kind.size / max(accepted, 1):>13,.1f}"
            f"{kind.seconds:>9,.0f}{columns}"
        )
    print(f"{'total, including the start':<68}" + "".join(f"{total:>14,.1f}" for total in sums))


def main() -> int:
    """Measure on a new stack."""
    rate, seconds, limit = (*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :])
    with own_stack() as stack:
        redis = Redis(unix_socket_path=f"{stack.folder}/valkey/valkey.sock")
        measured = run(stack.port, redis, rate=float(rate), seconds=float(seconds), limit=limit)
        return 1 if asyncio.run(measured) else 0


if __name__ == "__main__":
    sys.exit(main())
