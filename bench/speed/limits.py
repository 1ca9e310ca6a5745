"""Measurements of what the servers can do at most: bare Starlette, the raw INSERT, and pipelined XADD."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from bench.speed.cpu import CpuMeter
from bench.speed.load import press
from bench.speed.product import WARM_UP_SECONDS
from bench.speed.results import Figures, Plan
from bench.speed.sample_rows import TABLES
from bench.speed.stack import Bench, wait_until_ready
from local.stack.environment import free_port
from models.queue.inbox import SHARDS, inbox_key

BATCH = 500
"""Rows per transaction: as many as a drain reads at most."""
PIPELINE = 64
"""Commands per write: as many as the relay pushes together at most."""


def bare(bench: Bench, plan: Plan) -> Figures:
    """A bare Starlette app on one core."""
    with bench.stack() as stack:
        port = free_port("127.0.0.1", 0, variable="PORT")
        wait_until_ready(stack.start("bare", "-m", "bench.speed.bare_app", str(port)), port)
        press(port, seconds=WARM_UP_SECONDS)
        meter = CpuMeter({"bare": stack.pids["bare"]})
        pressure = press(port, seconds=plan.seconds)
        cpu_ms = meter.per_item_ms(pressure.succeeded)
        notes = [*pressure.notes(), *meter.notes(load_seconds=pressure.cpu_seconds)]
    latencies = {"accepted p50": pressure.load.p50_ms, "accepted p99": pressure.load.p99_ms}
    return Figures(per_second=pressure.per_second, milliseconds=latencies, cpu_ms=cpu_ms, notes=notes)


def insert(bench: Bench, plan: Plan, *, tables: Sequence[str] = TABLES) -> Figures:
    """The rows of webhooks in batches, a statement per table, on one connection. Building them is not counted."""
    statement, count, spent = bench.sample.statement(many=True, tables=tables), 0, 0.0
    with bench.stack() as stack:
        connection = stack.connection()
        try:
            meter = CpuMeter({"postgres": stack.pids["postgres"]})
            while spent < plan.seconds:
                numbers = range(count, count + BATCH)
                copies = (bench.sample.copy(f"raw-{number}", number) for number in numbers)
                parameters = bench.sample.parameters(copies, tables=tables)
                began_at = time.perf_counter()
                with connection, connection.cursor() as cursor:
                    cursor.execute(statement, parameters)
                spent += time.perf_counter() - began_at
                count += BATCH
            cpu_ms, notes = meter.per_item_ms(count), meter.notes()
        finally:
            connection.close()
        for table in tables:
            if stack.count(table) != count:
                raise RuntimeError(f"{count:,} rows were inserted, but {table} has {stack.count(table):,}.")
    return Figures(per_second=count / spent, cpu_ms=cpu_ms, notes=notes)


def xadd(bench: Bench, plan: Plan) -> Figures:
    """The entries of webhooks in pipelines of XADD, on one connection, with the same durability."""
    entry = bench.sample.entry.encode()
    commands = b"".join(_command(b"XADD", inbox_key(n % SHARDS).encode(), b"*", b"e", entry) for n in range(PIPELINE))
    count = 0
    with bench.stack() as stack, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(stack.valkey.url.removeprefix("unix://"))
        meter, began_at = CpuMeter({"valkey": stack.pids["valkey"]}), time.perf_counter()
        while (elapsed := time.perf_counter() - began_at) < plan.seconds:
            connection.sendall(commands)
            lines = 0
            while lines < 2 * PIPELINE:  # A reply is the length of an id and the id, each on a line.
                received = connection.recv(65_536)
                if not received or received.startswith(b"-"):
                    raise RuntimeError(f"Valkey refused an entry: {received.decode(errors='replace')[:200]}")
                lines += received.count(b"\n")
            count += PIPELINE
        cpu_ms, notes = meter.per_item_ms(count), meter.notes()
        if stack.backlog() != count:
            raise RuntimeError(f"{count:,} entries were added, but {stack.backlog():,} are there.")
    return Figures(per_second=count / elapsed, cpu_ms=cpu_ms, notes=notes)


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
