"""Measurements of the product: accepting, applying, both at once, and light load."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import psutil

from bench.speed.cpu import CpuMeter, usable_cores
from bench.speed.load import CONNECTIONS, PACED_CONNECTIONS, Pressure, pace, press
from bench.speed.results import Figures, Plan
from bench.speed.stack import DRAIN_SECONDS, Bench, Stack, wait_for
from bench.speed.webhook import SESSIONS, SOURCE_PATH

WARM_UP_SECONDS = 1.0
WARM_UP_SHARE = 0.2
BACKLOG = 2_000
"""The number of waiting webhooks above which the load pauses, so that the backlog stays flat."""
SETTLE_SECONDS = 0.3
LIGHT_PER_SECOND = 50.0
SHARE_OF_FULL_RATE = 0.7
"""The load at which latencies are measured beside the full rate."""
FLAT_SHARE = 0.05
"""The difference between the rates of accepting and applying above which the backlog was not flat."""


def accept(bench: Bench, plan: Plan) -> Figures:
    """The relay alone, without a worker."""
    with bench.stack() as stack:
        port = stack.start_relay()
        warm_up, meter = press(port, seconds=WARM_UP_SECONDS), CpuMeter(stack.pids)
        pressure = press(port, seconds=plan.seconds)
        cpu_ms = meter.per_item_ms(pressure.succeeded)
        notes = [*pressure.notes(), *meter.notes(load_seconds=pressure.cpu_seconds)]
        stored, accepted = stack.backlog(), warm_up.succeeded + pressure.succeeded
        if (
            not accepted <= stored <= accepted + 2 * CONNECTIONS
        ):  # wrk does not count the requests in flight at its end.
            raise RuntimeError(f"{accepted:,} webhooks were accepted, but {stored:,} are in the inbox.")
    return Figures(per_second=pressure.per_second, milliseconds=_latencies(pressure), cpu_ms=cpu_ms, notes=notes)


def apply(bench: Bench, plan: Plan, *, workers: int = 1, sessions: int = SESSIONS, keep_rows: bool = False) -> Figures:
    """Workers alone, on an inbox that was filled while they were stopped."""
    with bench.stack(keep_rows=keep_rows) as stack:
        port = stack.start_relay()
        supervisor = stack.start_workers(workers)
        processes = [psutil.Process(supervisor.pid), *psutil.Process(supervisor.pid).children(recursive=True)]
        _signal(processes, signal.SIGSTOP)
        press(port, seconds=plan.seconds, sessions=sessions)
        total, meter = _settled_backlog(stack), CpuMeter(stack.pids)
        _signal(reversed(processes), signal.SIGCONT)
        wait_for(lambda: stack.applied() > 0, what="The workers did not begin")
        first, began_at = stack.applied(), time.perf_counter()
        wait_for(lambda: stack.backlog() == 0, what="The inbox was not drained", seconds=DRAIN_SECONDS)
        elapsed = time.perf_counter() - began_at
        cpu_ms, notes = meter.per_item_ms(total), meter.notes()
        check_effects(stack, lowest=total)
    return Figures(per_second=(total - first) / elapsed, cpu_ms=cpu_ms, others={"webhooks": float(total)}, notes=notes)


def apply_with_two(bench: Bench, plan: Plan) -> Figures:
    """The same with two workers."""
    return apply(bench, plan, workers=2)


def end_to_end(bench: Bench, plan: Plan) -> Figures:
    """The relay and a worker per core at their common rate, then at a share of it for the latencies."""
    with bench.stack() as stack:
        port = stack.start_relay()
        stack.start_workers(usable_cores())
        accepted, figures = measure_flat(stack, port, plan, backlog=stack.backlog, limit=BACKLOG)
        stack.wait_until_drained()
        paced = pace(port, per_second=SHARE_OF_FULL_RATE * (figures.per_second or 1.0), seconds=plan.seconds)
        accepted += paced.succeeded
        stack.wait_until_drained()
        check_effects(stack, lowest=accepted)
        latencies = {
            **figures.milliseconds,
            "accepted p50 at 70 %": paced.load.p50_ms,
            "accepted p99 at 70 %": paced.load.p99_ms,
            **_applied(stack, paced, " at 70 %"),
        }
    return Figures(
        per_second=figures.per_second,
        milliseconds=latencies,
        cpu_ms=figures.cpu_ms,
        others=figures.others,
        notes=[*figures.notes, *(f"{note} at 70 %" for note in paced.notes())],
    )


def without(
    bench: Bench,
    plan: Plan,
    *,
    valkey_settings: Mapping[str, str] | None = None,
    postgres_settings: Mapping[str, str] | None = None,
) -> Figures:
    """The same rate, with a guarantee switched off by other settings of a server."""
    with bench.stack(valkey_settings=valkey_settings, postgres_settings=postgres_settings) as stack:
        port = stack.start_relay()
        stack.start_workers(usable_cores())
        accepted, figures = measure_flat(stack, port, plan, backlog=stack.backlog, limit=BACKLOG)
        stack.wait_until_drained()
        check_effects(stack, lowest=accepted)
    return figures


def light(bench: Bench, plan: Plan) -> Figures:
    """50 webhooks a second, first answered when accepted, then when applied."""
    with bench.stack() as stack:
        port = stack.start_relay()
        stack.start_workers(1)
        pace(port, per_second=LIGHT_PER_SECOND, seconds=WARM_UP_SECONDS)
        meter = CpuMeter(stack.pids)
        alone = pace(port, per_second=LIGHT_PER_SECOND, seconds=plan.seconds)
        cpu_ms = meter.per_item_ms(alone.succeeded)
        stack.wait_until_drained()
        applied = _applied(stack, alone, "")
        waiting = pace(port, per_second=LIGHT_PER_SECOND, seconds=plan.seconds, path=f"{SOURCE_PATH}?wait=30")
        notes = [*alone.notes(), *waiting.notes(), *meter.notes(load_seconds=alone.cpu_seconds + waiting.cpu_seconds)]
        latencies = {
            **_latencies(alone),
            **applied,
            "synchronous p50": waiting.load.p50_ms,
            "synchronous p99": waiting.load.p99_ms,
        }
    others = {"synchronous p50 / applied p50": waiting.load.p50_ms / applied["applied p50"]}
    return Figures(milliseconds=latencies, cpu_ms=cpu_ms, others=others, notes=notes)


def measure_flat(stack: Stack, port: int, plan: Plan, *, backlog: Callable[[], int], limit: int) -> tuple[int, Figures]:
    """Accept and apply at the same rate, by pausing the load while the backlog is over the limit. Returns the number of
    accepted webhooks too, with those of the warm-up."""
    seconds = max(WARM_UP_SECONDS, WARM_UP_SHARE * plan.seconds)  # The backlog grows to its limit meanwhile.
    warm_up = press(port, seconds=seconds, must_pause=lambda: backlog() > limit)
    applied_before, meter, began_at = stack.applied(), CpuMeter(stack.pids), time.perf_counter()
    pressure = press(port, seconds=plan.seconds, must_pause=lambda: backlog() > limit)
    elapsed, applied, waiting = time.perf_counter() - began_at, stack.applied() - applied_before, backlog()
    notes = [*pressure.notes(), *meter.notes(load_seconds=pressure.cpu_seconds)]
    per_second = applied / elapsed
    if abs(pressure.per_second - per_second) > FLAT_SHARE * pressure.per_second:
        notes.append(
            f"the backlog was not flat: {pressure.per_second:,.0f}/s accepted and {per_second:,.0f}/s applied,"
            f" {waiting:,} waiting at the end"
        )
    others = {
        "accepted per second": pressure.per_second,
        "waiting at the end": float(waiting),
        "share of time paused": pressure.paused_seconds / elapsed,
    }
    figures = Figures(
        per_second=per_second,
        milliseconds=_latencies(pressure),
        cpu_ms=meter.per_item_ms(applied),
        others=others,
        notes=notes,
    )
    return warm_up.succeeded + pressure.succeeded, figures


def check_effects(stack: Stack, *, lowest: int) -> None:
    """Check that each accepted webhook took effect once. Those in flight at the ends of the loads may be more."""
    highest = lowest + 2 * CONNECTIONS + PACED_CONNECTIONS
    for table in ("deliveries", "memories"):
        found = stack.count(table)
        if not lowest <= found <= highest:
            raise RuntimeError(f"{lowest:,} to {highest:,} webhooks were accepted, but {table} has {found:,} rows.")


def _settled_backlog(stack: Stack) -> int:
    """Return the backlog once the requests that were in flight at the end of a load have arrived."""
    before, now = -1, stack.backlog()
    while now != before:
        time.sleep(SETTLE_SECONDS)
        before, now = now, stack.backlog()
    return now


def _latencies(pressure: Pressure) -> dict[str, float]:
    return {"accepted p50": pressure.load.p50_ms, "accepted p99": pressure.load.p99_ms}


def _applied(stack: Stack, paced: Pressure, suffix: str) -> dict[str, float]:
    """Return the times from when each webhook was due until the commit of its transaction."""
    rows = stack.query(
        "SELECT split_part(delivery_id, '-', 2)::int, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
        " FROM deliveries WHERE delivery_id LIKE %s",
        f"{paced.prefix}-%",
    )
    times = [(at - paced.load.sent_at[number]) * 1_000 for number, at in rows]
    cuts = statistics.quantiles(times, n=100)
    return {f"applied p50{suffix}": cuts[49], f"applied p99{suffix}": cuts[98]}


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
