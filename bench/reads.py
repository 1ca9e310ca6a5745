"""Measures reads among many rows: `python -m bench.reads [--rows 1000000]`.

Compares the time of each read within this process, from the command to its answer, with that of its own statements,
sent by psycopg2 alone. Prints medians. Both take turns, each in a transaction of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import psycopg2
from sqlalchemy import Engine

from bench.growth import fill
from bench.large import Case, median_seconds, run_statements, statements_of
from bench.speed.stack import new_bench
from models.commands.definitions import GetSessionSummary, ListMemories, ListSessions, Search
from models.settings import Settings
from sessions.postgres.connections import create_engine
from sessions.postgres.reads.read_commands import page, read
from sessions.reads.read_scope import ReadScope

SESSION = "bench-0"
CASES = (
    Case(("list sessions",), msgspec.convert({"limit": 20}, ListSessions)),
    Case(("show a session",), msgspec.convert({}, GetSessionSummary), SESSION),
    Case(("list memories of a session",), msgspec.convert({"limit": 50}, ListMemories), SESSION),
    Case(("search a rare word",), msgspec.convert({"q": "shed 4711"}, Search)),
    Case(("search words of all memories",), msgspec.convert({"q": "heat pump"}, Search)),
    Case(("search in a session",), msgspec.convert({"q": "heat pump"}, Search), SESSION),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.reads", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="stored memories, deliveries and events")
    with new_bench() as bench:
        fill(bench, parser.parse_args(arguments).rows)
        settings = Settings(database_url=bench.postgres.url)
        engine = create_engine(settings, application_name="session-relay bench", pool_size=1)
        connection = psycopg2.connect(bench.postgres.url)
        works: dict[str, Callable[[], None]] = {}
        for case in CASES:
            works[case.name] = partial(_read, engine, case)
            works[f"SQL of {case.name}"] = partial(_run, connection, statements_of(settings, case))
        taken = median_seconds(works)
        connection.close()
        engine.dispose()
    for case in CASES:
        whole, sql = taken[case.name], taken[f"SQL of {case.name}"]
        print(f"{case.name:30} {whole * 1000:8.1f} ms, its SQL {sql * 1000:8.1f} ms: {whole / sql:.2f} times")
    return 0


def _read(engine: Engine, case: Case) -> None:
    origin: dict[str, Any] = {"session_id": case.session_id, "session_glob": None, "now": datetime.now(UTC)}
    with engine.begin() as connection:
        answer = read if isinstance(case.command, GetSessionSummary) else page
        msgspec.json.encode(answer(connection, case.command, ReadScope(**origin)))


def _run(connection: Any, statements: list[tuple[str, Any]]) -> None:
    run_statements(connection, statements)
    connection.rollback()


if __name__ == "__main__":
    sys.exit(main())
