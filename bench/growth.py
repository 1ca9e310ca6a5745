"""Measures how the cost of a webhook grows with what is stored: `python -m bench.growth [--rows 1000000] [--rounds 5]`.

One worker applies webhooks to empty tables, to ten times more sessions, and on another Postgres to as many stored
memories, deliveries and events as asked, in turn. Prints the CPU time per webhook of worker, Postgres and Valkey, and
each ratio to the empty tables.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

import psycopg2

from bench.speed import product
from bench.speed.limits import BATCH
from bench.speed.results import Figures, Plan
from bench.speed.stack import Bench, new_bench
from bench.speed.webhook import SESSIONS

GROUPS = ("worker", "postgres", "valkey")
MANY_SESSIONS = 10 * SESSIONS


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    asked = _parser().parse_args(arguments)
    plan = Plan(rounds=1, seconds=asked.seconds)
    empty, many, full = [], [], []
    with new_bench() as bench, new_bench() as filled:
        _add_sessions(bench)
        fill(filled, asked.rows)
        for number in range(1, asked.rounds + 1):
            empty.append(_show(f"empty {number}", product.apply(bench, plan)))
            many.append(
                _show(f"{MANY_SESSIONS:,} sessions {number}", product.apply(bench, plan, sessions=MANY_SESSIONS))
            )
            full.append(_show(f"{asked.rows:,} rows {number}", product.apply(filled, plan, keep_rows=True)))
    base = statistics.median(empty)
    for title, costs in (("empty", empty), (f"{MANY_SESSIONS:,} sessions", many), (f"{asked.rows:,} rows", full)):
        cost = statistics.median(costs)
        print(f"{title:>16}: {cost:.3f} ms, {cost / base:.2f} times that on empty tables")
    return 0


def _show(title: str, figures: Figures) -> float:
    cost = sum(figures.cpu_ms[group] for group in GROUPS)
    parts = ", ".join(f"{group} {figures.cpu_ms[group]:.3f}" for group in GROUPS)
    print(f"{title}: {figures.per_second:,.0f}/s, {cost:.3f} ms ({parts})", *figures.notes, sep="; ", file=sys.stderr)
    return cost


def _add_sessions(bench: Bench) -> None:
    columns = (
        "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = 'sessions' AND column_name <> 'session_id'"
        " AND is_generated = 'NEVER' AND identity_generation IS NULL"
    )
    with psycopg2.connect(bench.postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute(columns)
        ((names,),) = cursor.fetchall()
        cursor.execute(
            f"INSERT INTO sessions (session_id, {names}) SELECT 'bench-' || n, {names} FROM sessions,"  # noqa: S608
            " generate_series(%s, %s) AS n WHERE session_id = 'bench-0'",
            (SESSIONS, MANY_SESSIONS - 1),
        )
    connection.close()


def fill(bench: Bench, rows: int) -> None:
    """Store so many memories, each with its delivery and event."""
    statement = bench.sample.statement(many=True)
    with bench.stack():  # Empties the tables.
        pass
    connection = psycopg2.connect(bench.postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for first in range(0, rows, BATCH):
            numbers = range(first, min(rows, first + BATCH))
            cursor.execute(statement, bench.sample.parameters(bench.sample.copy(f"old-{n}", n) for n in numbers))
            if first % (rows // 10 or 1) < BATCH:
                print(f"{first:,} of {rows:,} rows", file=sys.stderr)
        cursor.execute("VACUUM ANALYZE")
    connection.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="stored memories, deliveries and events")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="time in which the inbox is filled")
    return parser


if __name__ == "__main__":
    sys.exit(main())
