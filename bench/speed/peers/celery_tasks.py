"""Celery: a task per webhook, acknowledged once done, and prefetched as its documentation advises for short tasks."""

from __future__ import annotations

import importlib
import os
from typing import Any

from starlette.concurrency import run_in_threadpool

from bench.speed.peers.effects import apply

PREFETCHED = 64
celery: Any = importlib.import_module("celery")
app = celery.Celery("bench", broker=os.environ["REDIS_URL"].replace("unix://", "redis+socket://"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=PREFETCHED,
)
task = app.task(apply, name="apply")


async def enqueue(body: str) -> None:
    """Enqueue the task of a webhook."""
    await run_in_threadpool(task.delay, body)
