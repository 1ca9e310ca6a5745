"""Measures the effect of a flooding key on another sender: `python -m bench.fairness`, about a minute, on a new stack.

A signing sender within its limit posts webhooks one after another, waiting for every second one to be applied;
alternately alone, and while another key posts 2,000 requests a second. Prints its response times, and the throughput of
the flood.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import msgspec

from bench.flood import Flooded
from bench.readiness import wait_until_ready
from local.stack.environment import free_port

FLOOD_PER_SECOND = 2_000
ROUNDS = 4
"""Phases alternate, because the machine's other load varies."""
PHASE_SECONDS = 8.0
PER_SECOND = 9.0
"""The rate of the measured sender, below its limit of 600 a minute."""
SETTLE_SECONDS = 2.0
"""Warm-up: first responses are slower, while connections are opened and code is loaded."""
KEY, SECRET = "key-of-the-flood", secrets.token_bytes(32)
ROOT = Path(__file__).parent.parent


class Times:
    """Response times in seconds, of webhooks that were only accepted and of those that were waited for."""

    def __init__(self) -> None:
        self.accepted: list[float] = []
        self.applied: list[float] = []

    def add(self, other: Times) -> None:
        """Merge other times into these."""
        self.accepted += other.accepted
        self.applied += other.applied


async def measure(url: str, seconds: float) -> Times:
    """Post one webhook at a time for `seconds`. Raises RuntimeError for an unexpected response."""
    times = Times()
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        number = 0
        while loop.time() - began_at < seconds:
            waits = number % 2 == 1
            data = {"key": f"k{number % 10}", "content": secrets.token_hex(8)}
            body = msgspec.json.encode({"command": "store_memory", "session_id": "measured", "data": data})
            path, headers = "/v1/webhook" + "?wait=30" * waits, sign(body)
            sent_at = time.perf_counter()
            answer = await client.post(path, content=body, headers=headers)
            (times.applied if waits else times.accepted).append(time.perf_counter() - sent_at)
            if answer.status_code != (200 if waits else 202):
                raise RuntimeError(f"{answer.status_code}: {answer.text}")
            number += 1
            await asyncio.sleep(max(0.0, began_at + number / PER_SECOND - loop.time()))
    return times


def sign(body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks for a body."""
    delivery_id, timestamp = secrets.token_hex(8), str(int(time.time()))
    digest = hmac.digest(SECRET, f"{delivery_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


async def run(url: str, port: int) -> None:
    """Run all phases."""
    async with httpx.AsyncClient(base_url=url) as client:
        body = {"command": "create_session", "session_id": "measured", "data": {"title": "Measured"}}
        await wait_until_ready(client)
        (await client.post("/v1/webhook?wait=30", json=body, headers={"X-API-Key": KEY})).raise_for_status()
    alone, pressed, floods = Times(), Times(), list[Flooded]()
    for _ in range(ROUNDS):
        await measure(url, SETTLE_SECONDS)
        alone.add(await measure(url, PHASE_SECONDS))
        command = (sys.executable, "-m", "bench.flood", str(port), KEY, str(FLOOD_PER_SECOND))
        seconds = str(PHASE_SECONDS + SETTLE_SECONDS + 1)
        flooding = await asyncio.create_subprocess_exec(*command, seconds, cwd=ROOT, stdout=subprocess.PIPE)
        await measure(url, SETTLE_SECONDS)
        pressed.add(await measure(url, PHASE_SECONDS))
        output, _ = await flooding.communicate()
        floods.append(msgspec.json.decode(output, type=Flooded))
    show(alone, pressed, floods)


def show(alone: Times, pressed: Times, floods: list[Flooded]) -> None:
    """Print the results."""
    answers = sum((Counter(flooded.answers) for flooded in floods), Counter[str]())
    seconds = sum(flooded.seconds for flooded in floods)
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(answers.items()))
    print(f"Flood: {answers.total() / seconds:,.0f} of {FLOOD_PER_SECOND:,} requests/s, responses {statuses}.")
    share = sum(flooded.cpu_seconds for flooded in floods) / seconds
    print(f"The flooding process itself used {share:.0%} of one of {os.cpu_count()} processors.")
    print(f"Load average over the last minute: {os.getloadavg()[0]:.1f}.")
    print(f"{'measured sender, ms':<24}{'alone p50':>12}{'p95':>8}{'flooded p50':>14}{'p95':>8}{'p95 ratio':>12}")
    for name, before, during in (
        ("accepted", alone.accepted, pressed.accepted),
        ("applied", alone.applied, pressed.applied),
    ):
        (old_50, old_95), (new_50, new_95) = percentiles(before), percentiles(during)
        row = f"{old_50:>12.1f}{old_95:>8.1f}{new_50:>14.1f}{new_95:>8.1f}{new_95 / old_95:>12.2f}"
        print(f"{f'{name} ({len(before)}, {len(during)})':<24}{row}")


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile, in milliseconds."""
    return statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=20)[-1] * 1000


def main() -> None:
    """Measure on a new stack, with the default limits."""
    port = free_port("127.0.0.1", 0, variable="PORT")
    with tempfile.TemporaryDirectory(prefix="session-relay-bench-") as folder:
        Path(folder).chmod(0o755)  # Postgres runs as another user when this runs as root.
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "DATA_DIR": folder,
            "PORT": str(port),
            "API_KEY": KEY,
            "WEBHOOK_SECRETS": f"measured=whsec_{base64.b64encode(SECRET).decode()}",
        }
        stack = subprocess.Popen((sys.executable, "-m", "local"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            asyncio.run(run(f"http://127.0.0.1:{port}", port))
        finally:
            stack.terminate()
            stack.wait()


if __name__ == "__main__":
    main()
