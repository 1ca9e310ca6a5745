"""Measures what traces cost: `python -m bench.traces [--rounds 3] [--seconds 8]`, in CPU time per webhook.

Each round runs the product at full rate without traces, with traces of one webhook in a hundred, and with traces of
all, which a collector in this process receives. Prints medians, and those of the differences within the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.speed.product import BACKLOG, measure_flat
from bench.speed.results import Plan
from bench.speed.stack import Bench, new_bench

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
GROUPS = ("relay", "worker")
"""The processes that make spans."""


class _Collector(BaseHTTPRequestHandler):
    """Takes all that is sent, and drops it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args(arguments)
    plan = Plan(rounds=options.rounds, seconds=options.seconds)
    found: dict[str, list[Mapping[str, float]]] = {}
    with new_bench() as bench, collector() as url:
        modes = {"off": {}, "one in a hundred": {ENDPOINT: url, **SAMPLED}, "all": {ENDPOINT: url}}
        for _ in range(plan.rounds):
            for name, variables in modes.items():
                found.setdefault(name, []).append(cpu_of(bench, plan, variables))
    print(f"{'traces':<18}" + "".join(f"{f'{group}, ms':>14}{'more':>8}" for group in GROUPS))
    for name, rounds in found.items():
        cells = []
        for group in GROUPS:
            more = [cpu[group] / off[group] - 1 for cpu, off in zip(rounds, found["off"], strict=True)]
            cells.append(f"{statistics.median(cpu[group] for cpu in rounds):>14.3f}{statistics.median(more):>8.0%}")
        print(f"{name:<18}" + "".join(cells))
    return 0


def cpu_of(bench: Bench, plan: Plan, variables: Mapping[str, str]) -> Mapping[str, float]:
    """Run at full rate, and return the CPU milliseconds of each group per webhook."""
    with bench.stack() as stack:
        port = stack.start_relay(**variables)
        stack.start_workers(1, **variables)
        _, figures = measure_flat(stack, port, plan, backlog=stack.backlog, limit=BACKLOG)
        stack.wait_until_drained()
    return figures.cpu_ms


@contextmanager
def collector() -> Iterator[str]:
    """Run a collector within the block, and return its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    sys.exit(main())
