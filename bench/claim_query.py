"""Measures the statements of a claim on tables of 10,000 and 1,000,000 tasks, for about a minute.

A part of bench.claims, which starts the servers: `python -m bench.claims query`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Engine, event, text

from sessions.postgres.tasks.claims import ClaimCriteria, ClaimedTask, claim


def measure_query(engine: Engine) -> None:
    """Measure the statements of one claim on tables of different sizes with equally many pending tasks."""
    times: dict[int, float] = {}
    for size in (10_000, 1_000_000):
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE sessions CASCADE"))
            connection.execute(
                text(
                    "INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at, "
                    "last_activity_at) SELECT 's' || n, 't', '{}', '', 'active', 'b', now(), now() "
                    "FROM generate_series(0, 999) n"
                )
            )
        for start in range(0, size, 100_000):
            with engine.begin() as connection:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(
                    text(FILL), {"first": start + 1, "last": min(start + 100_000, size), "every": size // 1_000}
                )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("VACUUM ANALYZE tasks"))
        times[size] = time_query(engine, show=size == 1_000_000)
        print(f"One claim on {size:,} tasks, 1,000 pending: {times[size] * 1000:.2f} ms, the median of 200.")
    print(f"Ratio: {times[1_000_000] / times[10_000]:.2f}.")


FILL = """
INSERT INTO tasks (session_id, task_id, agent_name, task_type, description, description_hash, priority, input_data,
    depends_on, max_attempts, attempt, status, questions, created_by, created_at, updated_at, finished_at)
SELECT 's' || n % 1000, 't' || n, CASE WHEN n % 2 = 0 THEN 'busy' END,
    CASE WHEN n % 3 = 0 THEN 'code' ELSE 'general' END, 'do ' || n, md5(n::text), n % 7, '{}', '{}', 3, 0,
    CASE WHEN n % :every = 0 THEN 'pending' ELSE 'completed' END, '[]', 'bench', now(), now(),
    CASE WHEN n % :every = 0 THEN NULL ELSE now() END
FROM generate_series(:first, :last) n
"""


def time_query(engine: Engine, *, show: bool) -> float:
    """Measure the seconds of a claim that is rolled back."""
    wanted = ClaimCriteria(agent_name="busy", worker="w", lease_seconds=60, source="bench", task_types=("code",))
    seconds = []
    for number in range(201):
        with engine.connect() as connection, connection.begin() as transaction:
            began_at = time.perf_counter()
            with explained(connection) if number == 0 and show else nullcontext():
                found = claim(connection, wanted)
            if number:
                seconds.append(time.perf_counter() - began_at)
            if not isinstance(found, ClaimedTask):
                raise RuntimeError("No task was found.")
            transaction.rollback()
    return statistics.median(seconds)


@contextmanager
def explained(connection: Any) -> Iterator[None]:
    """Print the plans of the queries that find and claim the task."""

    def explain(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "ORDER BY" in statement and "INSERT INTO" not in statement:
            cursor.execute("SAVEPOINT before_plan")
            cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}", parameters)
            print("\n".join("    " + row[0] for row in cursor.fetchall()))
            cursor.execute("ROLLBACK TO before_plan")

    event.listen(connection, "before_cursor_execute", explain)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", explain)
