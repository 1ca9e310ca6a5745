"""procrastinate: a job per webhook in a Postgres database of its own on the same server, deleted once it succeeded."""

from __future__ import annotations

import importlib
import os
from typing import Any

from bench.speed.peers.effects import apply

QUEUE_URL = "BENCH_QUEUE_URL"
"""The variable with the URL of the database of jobs."""
CONCURRENCY = 10
"""Connections of the endpoint, and concurrent jobs of a worker process."""
procrastinate: Any = importlib.import_module("procrastinate")
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ[QUEUE_URL], min_size=CONCURRENCY, max_size=CONCURRENCY)
)
task = app.task(apply, name="apply")


async def enqueue(body: str) -> None:
    """Enqueue the job of a webhook."""
    await task.defer_async(body=body)
