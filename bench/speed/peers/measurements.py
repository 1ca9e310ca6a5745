"""Measurements of the peers: end to end, with a job per webhook and as many worker processes as there are cores."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec

from bench.speed.cpu import usable_cores
from bench.speed.load import ROOT
from bench.speed.peers.effects import SAMPLE_FILE
from bench.speed.product import check_effects, measure_flat
from bench.speed.results import Figures, Measurement, Plan
from bench.speed.stack import DRAIN_SECONDS, Bench, Stack, wait_for, wait_until_ready
from local.stack.environment import free_port

BACKLOG = 500
"""The number of waiting jobs above which the load pauses: some seconds of work for the slowest peer."""
QUEUE_DATABASE = "bench_queue"


class Peer(NamedTuple):
    """A job queue, with its module beside this one."""

    name: str
    module: str
    worker: tuple[str, ...]
    processes: int
    """How many times the worker is started; some start their own processes."""
    queue: str
    """The list of waiting jobs in Redis, empty if they are in Postgres."""


CORES = usable_cores()
PLACE = "bench.speed.peers"
CELERY = ("worker", "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")
PROCRASTINATE = ("-m", "procrastinate", f"--app={PLACE}.procrastinate_tasks.app")
PEERS = (
    Peer("rq", "rq_jobs", ("-m", f"{PLACE}.rq_jobs"), CORES, "rq:queue:bench"),
    Peer(
        "celery",
        "celery_tasks",
        ("-m", "celery", "-A", f"{PLACE}.celery_tasks", *CELERY, "--concurrency", str(CORES)),
        1,
        "celery",
    ),
    Peer(
        "dramatiq",
        "dramatiq_actors",
        ("-m", "dramatiq", f"{PLACE}.dramatiq_actors", "--processes", str(CORES)),
        1,
        "dramatiq:default",
    ),
    Peer(
        "procrastinate",
        "procrastinate_tasks",
        (*PROCRASTINATE, "worker", "--concurrency", "10", "--delete-jobs", "successful"),
        CORES,
        "",
    ),
)


def measure(peer: Peer, bench: Bench, plan: Plan) -> Figures:
    """Accepted and applied with a flat backlog."""
    with bench.stack() as stack:
        sample = stack.folder / "sample.json"
        sample.write_bytes(msgspec.json.encode(bench.sample))
        variables = {SAMPLE_FILE: str(sample)}
        if not peer.queue:
            variables["BENCH_QUEUE_URL"] = _create_queue(stack)
            command = (sys.executable, *PROCRASTINATE, "schema", "--apply")
            subprocess.run(command, cwd=ROOT, env=stack.environment(variables), check=True)  # noqa: S603
        port = free_port("127.0.0.1", 0, variable="PORT")
        wait_until_ready(stack.start("endpoint", "-m", f"{PLACE}.endpoint", peer.module, str(port), **variables), port)
        for number in range(1, peer.processes + 1):
            stack.start("worker" if peer.processes == 1 else f"worker-{number}", *peer.worker, **variables)
        accepted, figures = measure_flat(stack, port, plan, backlog=_backlog(peer, stack, variables), limit=BACKLOG)
        wait_for(lambda: stack.count("memories") >= accepted, what="The jobs were not done", seconds=DRAIN_SECONDS)
        check_effects(stack, lowest=accepted)
    return figures


def installed_peers() -> list[Measurement]:
    """Return the measurements of the peers that are installed."""
    return [
        Measurement(peer.name, f"{peer.name}, with a job per webhook", partial(measure, peer))
        for peer in PEERS
        if importlib.util.find_spec(peer.name)
    ]


def missing_peers() -> list[str]:
    """Return the names of the packages that are not installed."""
    return [peer.name for peer in PEERS if not importlib.util.find_spec(peer.name)]


def _create_queue(stack: Stack) -> str:
    stack.query(f"DROP DATABASE IF EXISTS {QUEUE_DATABASE} WITH (FORCE)")
    stack.query(f"CREATE DATABASE {QUEUE_DATABASE}")
    return stack.postgres.url.replace("/postgres?", f"/{QUEUE_DATABASE}?")


def _backlog(peer: Peer, stack: Stack, variables: dict[str, str]) -> Callable[[], int]:
    if peer.queue:
        return lambda: int(stack.redis.llen(peer.queue))
    cursor = stack.connection(variables["BENCH_QUEUE_URL"]).cursor()
    cursor.connection.autocommit = True

    def waiting() -> int:
        cursor.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM procrastinate_jobs_id_seq")
        return int(cursor.fetchone()[0]) - stack.applied()

    return waiting
